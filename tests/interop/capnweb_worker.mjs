// A Worker with npm capnweb inside, which runtime.mjs runs: a request to /NAME opens a session with the binding FORMS of a
// proxy, by the WebSocket of its RPC channel, and runs what SCENARIOS has under NAME. It answers with {result, stats}, of
// what the Worker's side still holds at the end, or with {thrown}. Nothing here judges: the Python tests do.
import { RpcSession, RpcTarget, WebSocketTransport } from "./capnweb.js";

const SETTLING_TRIPS = 100;

class Doubler extends RpcTarget {
  double(number) {
    return number * 2;
  }
}

async function thrownBy(promise) {
  try {
    return { value: await promise };
  } catch ({ name, message, code }) {
    return { name, message, code };
  }
}

async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

function bytesOf(count, size) {
  return new ReadableStream({
    pull(controller) {
      if (count-- > 0) controller.enqueue(new Uint8Array(size));
      else controller.close();
    },
  });
}

const SCENARIOS = {
  async maps(api) {
    const counter = api.counter(10);
    const people = api.people().map((person) => ({ id: person.id, who: person.name, by: counter.increment(person.id) }));
    const nested = api.echo([[1, 2], [3]]).map((row) => row.map((number) => counter.increment(number)));
    const results = {
      people: await people,
      nested: await nested,
      nothing: await api.nothing().map((value) => api.echo(value)),
      single: await api.echo({ name: "x" }).map((value) => [value.name]),
      failed: await thrownBy(api.echo([1]).map((number) => api.fail(number))),
    };
    counter[Symbol.dispose]();
    return results;
  },

  async readable(api) {
    return {
      total: await api.total(bytesOf(50, 20_000)),
      counted: await all(await api.count(200)),
    };
  },

  async cancelled(api) {
    const reader = (await api.count(1_000_000)).getReader();
    const first = await reader.read();
    await reader.cancel();
    let closed = 0;
    for (let trip = 0; trip < SETTLING_TRIPS && !closed; trip++) closed = await api.sources_closed();
    return { first, closed };
  },

  async failing(api) {
    const stream = new ReadableStream({
      start(controller) {
        controller.error(new RangeError("out of bytes"));
      },
    });
    return thrownBy(api.total(stream));
  },

  async writable(api) {
    const writer = (await api.notebook()).getWriter();
    await writer.write({ n: [1] });
    await writer.write("two");
    await writer.close();
    return api.written();
  },

  async capabilities(api) {
    const chunks = await all(await api.echo(new ReadableStream({
      start(controller) {
        controller.enqueue({ doubler: new Doubler() });
        controller.close();
      },
    })));
    const doubled = await chunks[0].doubler.double(21);
    chunks[0].doubler[Symbol.dispose]();
    return doubled;
  },

  async web(api) {
    const request = new Request("https://example.com/a?b=c", { method: "PUT", headers: { "x-one": "1" }, body: "asked" });
    const response = new Response("answered", { status: 201, headers: { "x-two": "2" } });
    return [
      await api.describe(new URL("https://example.com/p?q=1")),
      await api.describe(new Headers([["b", "2"], ["a", "1"], ["b", "3"]])),
      await api.describe(new Blob(["some text"], { type: "text/plain" })),
      await api.describe(request),
      await api.describe(response),
    ];
  },

  async webBack(api) {
    const url = await api.echo(new URL("https://example.com/p"));
    const headers = await api.echo(new Headers({ a: "1" }));
    const blob = await api.echo(new Blob(["text"], { type: "text/plain" }));
    const response = await api.echo(new Response("whole", { status: 202 }));
    return {
      url: [url.constructor.name, url.href],
      headers: [headers.constructor.name, ...headers],
      blob: [blob.constructor.name, blob.type, await blob.text()],
      response: [response.constructor.name, response.status, await response.text()],
    };
  },

  async arrays(api) {
    const sent = [new Uint8Array([1, 2]), new Float64Array([1.5, -2]), new BigInt64Array([5n]), new Uint16Array([7]).buffer];
    return (await api.echo(sent)).map((array) => [array.constructor.name, String(array)]);
  },

  async errors(api) {
    const error = new TypeError("bad", { cause: new RangeError("why") });
    error.code = 5;
    const back = await api.echo(error);
    const group = await api.echo(new AggregateError([new RangeError("one")], "several"));
    return {
      one: [back.constructor.name, back.message, back.code, back.cause.constructor.name, back.cause.message],
      group: [group.constructor.name, group.message, group.errors.map(String)],
      date: String(await api.echo(new Date(NaN))),
    };
  },
};

/** What this side holds, once it holds no more than its main objects, or after a number of round trips. */
async function settled(session, api) {
  for (let trip = 0; trip < SETTLING_TRIPS; trip++) {
    const living = await api.living();
    const { imports, exports } = session.getStats();
    if (imports === 1 && exports === 1 && living === 0) break;
  }
  return { ...session.getStats(), living: await api.living() };
}

export default {
  async fetch(request) {
    const { proxy } = await request.json();
    const upgraded = await fetch(`${proxy}?MF-Binding=FORMS`, { headers: { Upgrade: "websocket" } });
    const socket = upgraded.webSocket;
    socket.accept();
    try {
      const session = new RpcSession(new WebSocketTransport(socket));
      const api = session.getRemoteMain();
      const result = await SCENARIOS[new URL(request.url).pathname.slice(1)](api);
      return Response.json({ result, stats: await settled(session, api) });
    } catch (error) {
      return Response.json({ thrown: String(error.stack) });
    } finally {
      socket.close();
    }
  },
};
