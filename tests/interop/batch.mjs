// npm capnweb's HTTP batch, both ways, for the Python tests.
//   node batch.mjs serve            serves api.mjs with nodeHttpBatchRpcResponse; prints {"port": N}, ends with its standard input
//   node batch.mjs call URL         runs every scenario against a server, each in batches of its own; prints {"scenario", "ok",
//                                   "detail"} for each
//   node batch.mjs list             prints the scenarios' names
import assert from "node:assert/strict";
import http from "node:http";
import { Api, World } from "./api.mjs";
import { VALUES, same } from "./values.mjs";

const { RpcTarget, newHttpBatchRpcSession, nodeHttpBatchRpcResponse } = await import("capnweb");

const DEADLINE_MS = 30_000;

function serve() {
  const world = new World();
  let batches = 0;
  const server = http.createServer((request, response) => {
    const entry = { id: ++batches, stats: () => ({}) };
    nodeHttpBatchRpcResponse(request, response, new Api(world, entry)).catch((error) => {
      response.writeHead(500).end(String(error?.message ?? error));
    });
  });
  server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
  process.stdin.resume().on("end", () => process.exit(0));
}

/** The bodies of the requests that `work` sends, line by line, and the number of requests. */
async function recorded(work) {
  const bodies = [];
  const fetchIt = globalThis.fetch;
  globalThis.fetch = (url, init) => {
    bodies.push(init.body.split("\n"));
    return fetchIt(url, init);
  };
  try {
    await work();
  } finally {
    globalThis.fetch = fetchIt;
  }
  return bodies;
}

async function failureOf(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new assert.AssertionError({ message: "it did not fail" });
}

class LocalCounter extends RpcTarget {
  #count = 10;

  increment(by = 1) {
    return (this.#count += by);
  }
}

const SCENARIOS = {
  async "calls and pipelines in one request"(open) {
    const bodies = await recorded(async () => {
      const api = open();
      const counter = api.counter("batch: one request", 2);
      const results = await Promise.all([api.square(6), counter.increment(3), counter.value, api.bump(counter, 4)]);
      assert.deepEqual(results, [36, 5, 5, 9]);
    });
    assert.equal(bodies.length, 1);
  },

  async "maps in one request"(open) {
    const bodies = await recorded(async () => {
      const api = open();
      const squares = await api.echo([1, 2, 3]).map((number) => ({ number, square: api.square(number) }));
      assert.deepEqual(squares, [1, 2, 3].map((number) => ({ number, square: number * number })));
    });
    assert.equal(bodies.length, 1);
  },

  async "order is kept"(open) {
    const api = open();
    const journal = api.journal();
    const marks = [journal.mark(1), journal.linger(2), journal.mark(3), journal.linger(4)];
    const [noted] = await Promise.all([journal.marks(), ...marks]);
    assert.deepEqual([...noted], [1, 2, 3, 4]);
  },

  async "what is not there yet"(open) {
    const api = open();
    const counter = api.tardy("batch: tardy");
    assert.deepEqual(await Promise.all([counter.increment(2), counter.soon(3)]), [2, 5]);
  },

  async "properties of results as arguments"(open) {
    const api = open();
    const { config } = api;
    assert.equal(await api.add(config.limits.depth, config.limits.depth), 6);
  },

  async errors(open) {
    const api = open();
    const [type, range, custom, spread, fine] = await Promise.all([
      failureOf(api.fail("type")),
      failureOf(api.fail_later("range")),
      failureOf(api.fail("custom")),
      failureOf(api.fail("type").any.thing()),
      api.square(2),
    ]);
    assert.ok(type instanceof TypeError && type.message === "no such shape");
    assert.ok(range instanceof RangeError && range.message === "out of range");
    assert.equal(custom.aisle, 7);
    assert.ok(spread instanceof TypeError);
    assert.equal(fine, 4);
  },

  async "a result that cannot be sent fails alone"(open) {
    const api = open();
    const [error, fine] = await Promise.all([failureOf(api.unsendable()), api.square(3)]);
    assert.ok(error instanceof TypeError);
    assert.equal(fine, 9);
  },

  async "own objects come home"(open) {
    const api = open();
    const counter = new LocalCounter();
    const [[home], doubled] = await Promise.all([api.handback(counter), api.echo([(x) => x * 2])]);
    assert.equal(await home.increment(5), 15);
    assert.equal(await doubled[0](4), 8);
  },

  async "targets made in the batch as arguments"(open) {
    const api = open();
    const counter = api.counter("batch: arguments", 5);
    const bundle = api.bundle("batch: arguments");
    const results = await Promise.all([api.bump(counter, 2), bundle.deep.adder(1)]);
    assert.deepEqual(results, [7, 101]);
  },

  async "dup and dispose"(open) {
    const api = open();
    const counter = api.counter("batch: dup", 1);
    const second = counter.dup();
    counter[Symbol.dispose]();
    const result = second.increment(4);
    second[Symbol.dispose]();
    assert.equal(await result, 5);
  },

  async "nothing to call"(open) {
    const bodies = await recorded(async () => {
      open();
      await new Promise(setImmediate);
      await new Promise((resolve) => setTimeout(resolve, 50));
    });
    assert.deepEqual(bodies, [[""]]);
  },

  async "a call back fails, and its batch goes on"(open) {
    const api = open();
    const [error, fine] = await Promise.all([failureOf(api.call((x) => x, 4)), api.square(3)]);
    assert.match(error.message, /a client that sent an HTTP batch cannot answer/);
    assert.equal(fine, 9);
  },

  async "an abort tells its reason"(open) {
    const api = open();
    const error = await failureOf(api.echo(10n ** 17_000n));
    assert.match(error.message, /max_bigint_digits/);
  },

  async "an ended batch takes no calls"(open) {
    const api = open();
    const counter = await api.counter("batch: ended");
    const error = await failureOf(counter.increment(1));
    assert.match(error.message, /Batch RPC request ended/);
  },

  async "other methods get 405"(_open, url) {
    for (const method of ["GET", "PUT", "DELETE"]) {
      const response = await fetch(url, { method });
      assert.equal(response.status, 405);
      assert.equal(response.headers.get("allow"), "POST");
      await response.text();
    }
  },
};

for (const name of Object.keys(VALUES)) {
  SCENARIOS[`value: ${name}`] = async (open) => {
    const api = open();
    const [received, checked, echoed] = await Promise.all([
      api.value(name),
      api.check(name, VALUES[name]()),
      api.echo(VALUES[name]()),
    ]);
    assert.ok(same(received, VALUES[name]()), `received ${String(received)}`);
    assert.equal(checked, true, "what arrived there is not the same value");
    assert.ok(same(echoed, VALUES[name]()), `echoed ${String(echoed)}`);
  };
}

async function run(name, url) {
  const overdue = Promise.withResolvers();
  const timer = setTimeout(() => overdue.reject(new Error(`no answer in ${DEADLINE_MS} ms`)), DEADLINE_MS);
  try {
    await Promise.race([SCENARIOS[name](() => newHttpBatchRpcSession(url), url), overdue.promise]);
    return { scenario: name, ok: true, detail: null };
  } catch (error) {
    return { scenario: name, ok: false, detail: String(error?.stack ?? error) };
  } finally {
    clearTimeout(timer);
  }
}

const [mode, url] = process.argv.slice(2);
if (mode === "serve") serve();
else if (mode === "list") console.log(JSON.stringify(Object.keys(SCENARIOS)));
else for (const name of Object.keys(SCENARIOS)) console.log(JSON.stringify(await run(name, url)));
