// The Worker that runtime.mjs runs: a request to /NAME runs what SCENARIOS has under NAME, and answers with its result as
// JSON, or with the error that it threw as {thrown}. Nothing here judges: the Python tests do.

const SETTLING_TRIPS = 100;

/** What a value is, beyond what JSON can say. */
function described(value) {
  if (value === null) return "null";
  if (Array.isArray(value)) return value.map(described);
  if (value?.constructor === Object) {
    return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, described(member)]));
  }
  if (value instanceof Date) return `Date ${value.toISOString()}`;
  if (value instanceof Uint8Array) return `Uint8Array ${[...value]}`;
  if (value instanceof Error) return `${value.constructor.name} ${value.name}: ${value.message}`;
  if (Object.is(value, -0)) return "number -0";
  return `${typeof value} ${value}`;
}

function errorParts(error) {
  const { name, message, code, detail } = error;
  // JSON leaves out what is undefined.
  return { class: error.constructor.name, name, message, code, detail };
}

/** What awaiting a promise threw, or the news that it did not. */
async function thrownBy(promise) {
  try {
    return { value: described(await promise) };
  } catch (error) {
    return errorParts(error);
  }
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

function toBase64(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

function streamOf(bytes) {
  return new Response(bytes).body;
}

/** One chunk of a stream, as text. */
async function chunkOf(reader) {
  const { done, value } = await reader.read();
  return done ? null : new TextDecoder().decode(value);
}

async function responseParts(response) {
  const cookies = response.headers.getSetCookie();
  const headers = Object.fromEntries(response.headers);
  return { status: response.status, headers, cookies, body: await response.text() };
}

const SCENARIOS = {
  async results({ SVC }) {
    return described(await SVC.every_kind());
  },

  async thereAndBack({ SVC }) {
    const value = { a: [1, null, "ü", true], d: new Date(86_400_000), b: new Uint8Array([0, 255]), n: { n: 10n ** 30n } };
    return described(await SVC.echo(value));
  },

  async arguments({ SVC }) {
    return [await SVC.hello("World"), await SVC.hello("World", { greeting: "Hei" })];
  },

  async property({ SVC }) {
    return described(await SVC.motto);
  },

  async errors({ SVC }) {
    return {
      value: await thrownBy(SVC.fail("ValueError")),
      type: await thrownBy(SVC.fail("TypeError")),
      own: await thrownBy(SVC.fail("OutOfStock")),
      missing: await thrownBy(SVC.no_such_method()),
      private: await thrownBy(SVC._secret()),
      afterwards: await SVC.hello("World"),
    };
  },

  async callbacks({ SVC }) {
    const numbers = [];
    const doubled = await SVC.call_each([1, 2, 3], (number) => {
      numbers.push(number);
      return number * 2;
    });
    const awaited = await SVC.call_each([1], async (number) => number + 1);
    return { numbers, doubled, awaited };
  },

  async failingCallback({ SVC }) {
    const failing = () => {
      throw new RangeError("not so far");
    };
    return SVC.report_failure(failing);
  },

  async stubs({ SVC }) {
    using counter = await SVC.make_counter(10);
    const values = [await counter.increment(), await counter.increment(5), await counter.value];
    using add = await SVC.make_adder(100);
    return { values, sum: await add(1) };
  },

  async nestedStubs({ SVC }) {
    using pair = await SVC.make_counters();
    return [await pair.counters[0].increment(), await pair.counters[1].increment(), pair.name];
  },

  async pipelining({ SVC }) {
    return [
      await SVC.make_counter(1).increment(1),
      await SVC.make_counter(1).twin().twin().increment(2),
      await SVC.make_counter(7).value,
      await thrownBy(SVC.fail("ValueError").increment()),
    ];
  },

  async together({ SVC }) {
    return Promise.all(Array.from({ length: 30 }, (_, index) => SVC.echo(index)));
  },

  /** How many counters the service has. What was released elsewhere takes some round trips to arrive. */
  async living({ SVC }) {
    let living = await SVC.living();
    for (let trip = 0; trip < SETTLING_TRIPS && living > 0; trip++) living = await SVC.living();
    return living;
  },

  async heldStub({ SVC }) {
    using counter = await SVC.make_counter(0);
    await counter.increment();
    const living = await SVC.living();
    return living;
  },

  async stubGivenBack({ SVC }) {
    using counter = await SVC.make_counter(3);
    const value = await SVC.value_of(counter);
    return value;
  },

  async fetched(env, { binding, url, init }) {
    return responseParts(await env[binding].fetch(url, init));
  },

  async fetchedHeaders({ SVC }) {
    const headers = new Headers([
      ["x-list", "one"],
      ["x-list", "two"],
      ["Authorization", "Bearer of news"],
      ["MF-Binding", "OTHER"],
    ]);
    return responseParts(await SVC.fetch(new Request("https://a.example/headers", { headers })));
  },

  /** Each chunk is written when the one before has come back. */
  async duplex(env, { binding }) {
    const { readable, writable } = new TransformStream();
    const writer = writable.getWriter();
    const request = { method: "POST", body: readable };
    const responding = env[binding].fetch("https://a.example/duplex", request);
    const first = writer.write(new TextEncoder().encode("one"));
    const response = await responding;
    await first;
    const reader = response.body.getReader();
    const chunks = [await chunkOf(reader)];
    for (const word of ["two", "three"]) {
      await writer.write(new TextEncoder().encode(word));
      chunks.push(await chunkOf(reader));
    }
    await writer.close();
    chunks.push(await chunkOf(reader));
    return chunks;
  },

  /** The second chunk is made when the service is told to, which happens after the first one was read. */
  async drip(env, { binding }) {
    const response = await env[binding].fetch("https://a.example/drip");
    const reader = response.body.getReader();
    const chunks = [await chunkOf(reader)];
    await env[binding].fetch("https://a.example/go-on");
    chunks.push(await chunkOf(reader), await chunkOf(reader));
    return chunks;
  },

  /** The second chunk is written when another request has told that the first one has arrived. */
  async upload(env, { binding }) {
    const { readable, writable } = new TransformStream();
    const writer = writable.getWriter();
    const responding = env[binding].fetch("https://a.example/upload", { method: "POST", body: readable });
    await writer.write(new TextEncoder().encode("first"));
    const arrived = await env[binding].fetch("https://a.example/arrived");
    const chunks = [await arrived.text()];
    await writer.write(new TextEncoder().encode("last"));
    await writer.close();
    chunks.push(await (await responding).text());
    return chunks;
  },

  async cutOff({ SVC }) {
    const response = await SVC.fetch("https://a.example/cut");
    return { status: response.status, thrown: await thrownBy(response.text()) };
  },

  /** A body that is larger than any buffer on its way, there and back. */
  async large(env, { binding, size }) {
    const body = new Uint8Array(size);
    for (let at = 0; at < size; at += 4096) body[at] = at / 4096;
    const response = await env[binding].fetch("https://a.example/duplex", { method: "POST", body: streamOf(body) });
    const back = new Uint8Array(await response.arrayBuffer());
    return { size: back.length, same: back.every((byte, at) => byte === body[at]) };
  },

  async webSocket({ SVC }) {
    const response = await SVC.fetch("https://a.example/", { headers: { Upgrade: "websocket" } });
    return { status: response.status, socket: response.webSocket !== null, body: await response.text() };
  },

  /** Web types as arguments and results of calls. */
  async webTypes({ SVC }) {
    const init = { method: "POST", headers: { "x-a": "b", "content-type": "a/b" }, body: "question" };
    const request = await SVC.web_value("request");
    return {
      headers: await SVC.describe(new Headers([["b", "1"], ["a", "2"], ["b", "3"]])),
      request: await SVC.describe(new Request("https://a.example/x", init)),
      response: await SVC.describe(new Response(streamOf("answer"), { status: 404, headers: { "x-a": "b" } })),
      receivedHeaders: [...(await SVC.web_value("headers"))],
      receivedRequest: [request.method, request.url, [...request.headers], await request.text()],
      receivedResponse: await responseParts(await SVC.web_value("response")),
      receivedPlain: await responseParts(await SVC.web_value("plain")),
    };
  },

  async newerTypes({ SVC }) {
    return {
      url: await thrownBy(SVC.echo(new URL("https://a.example/"))),
      blob: await thrownBy(SVC.echo(new Blob(["a"]))),
      typedArray: await thrownBy(SVC.echo(new Int16Array(1))),
    };
  },

  async unreachable(env, { binding }) {
    return {
      call: await thrownBy(env[binding].hello("World")),
      fetch: await responseParts(await env[binding].fetch("https://a.example/")),
    };
  },

  async info({ IMAGES }, { image }) {
    return {
      stream: await IMAGES.info(streamOf(fromBase64(image))),
      base64: await IMAGES.info(streamOf(image), { encoding: "base64" }),
    };
  },

  async thumbnail({ IMAGES }, { image, overlay, steps, draw, output }) {
    let picture = IMAGES.input(streamOf(fromBase64(image)));
    for (const step of steps) picture = picture.transform(step);
    if (overlay) {
      const badge = IMAGES.input(streamOf(fromBase64(overlay))).transform({ width: 4, height: 4 });
      picture = picture.draw(badge, draw);
    }
    const result = await picture.output(output);
    const bytes = new Uint8Array(await new Response(result.image()).arrayBuffer());
    return { type: result.contentType(), image: toBase64(bytes) };
  },

  async imageInfoError({ IMAGES }) {
    return thrownBy(IMAGES.info(streamOf("no image")));
  },

  async base64Both({ IMAGES }, { image }) {
    const picture = IMAGES.input(streamOf(image), { encoding: "base64" });
    const result = await picture.output({ format: "image/png" });
    return { image: await new Response(result.image({ encoding: "base64" })).text() };
  },

  async imageResponse({ IMAGES }, { image }) {
    const result = await IMAGES.input(streamOf(fromBase64(image))).output({ format: "image/gif" });
    const response = result.response();
    return { type: response.headers.get("content-type"), image: toBase64(new Uint8Array(await response.arrayBuffer())) };
  },

  async imageErrors({ IMAGES }, { image }) {
    const input = () => IMAGES.input(streamOf(fromBase64(image)));
    const used = input();
    await used.output({ format: "image/png" });
    return {
      info: await thrownBy(IMAGES.info(streamOf("no image"))),
      input: await thrownBy(IMAGES.input(streamOf("no image")).output({ format: "image/png" })),
      option: await thrownBy(input().transform({ width: -1 }).output({ format: "image/png" })),
      format: await thrownBy(input().output({ format: "image/nonsense" })),
      consumed: await thrownBy((async () => used.output({ format: "image/png" }))()),
    };
  },
};

export default {
  async fetch(request, env) {
    const scenario = SCENARIOS[new URL(request.url).pathname.slice(1)];
    try {
      return Response.json({ result: await scenario(env, await request.json()) });
    } catch (error) {
      return Response.json({ thrown: { ...errorParts(error), stack: error.stack } });
    }
  },
};
