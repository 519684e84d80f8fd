// What an npm capnweb client does with a server that offers api.mjs or api.py, one rule a scenario. A scenario throws
// where the rule is broken, and lets go of all that it was given: the caller then counts what is left on both sides.
import assert from "node:assert/strict";
import { VALUES, WEB_VALUES, described, same } from "./values.mjs";
import { CBOR_PROTOCOL, WebSocket, closed, roundTrips } from "./wire.mjs";

const { RpcPromise, RpcStub, RpcTarget } = await import("capnweb");

export const SCENARIOS = {};

function scenario(name, rule, { endsSession = false } = {}) {
  rule.endsSession = endsSession;
  SCENARIOS[name] = rule;
}

function release(...stubs) {
  for (const stub of stubs) stub[Symbol.dispose]();
}

/** The error that `promise` rejects with. */
async function failureOf(promise) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    return error;
  }
  throw new assert.AssertionError({ message: `expected an error, got ${String(value)}` });
}

/** A target of this side that counts how often it is disposed of. */
class LocalCounter extends RpcTarget {
  disposals = 0;
  #count = 10;
  #disposed = Promise.withResolvers();

  increment(by = 1) {
    return (this.#count += by);
  }

  get value() {
    return this.#count;
  }

  /** Resolves when the last reference is gone. Asked of the object itself, never of a stub. */
  whenDisposed() {
    return this.#disposed.promise;
  }

  [Symbol.dispose]() {
    this.disposals++;
    this.#disposed.resolve();
  }
}

// ---- values

for (const name of Object.keys(VALUES)) {
  scenario(`value: ${name}`, async ({ api }) => {
    const received = await api.value(name);
    assert.ok(same(received, VALUES[name]()), `received ${String(received)}`);
    assert.equal(await api.check(name, VALUES[name]()), true, "what arrived there is not the same value");
    const echoed = await api.echo(VALUES[name]());
    assert.ok(same(echoed, VALUES[name]()), `echoed ${String(echoed)}`);
  });
}

for (const name of Object.keys(WEB_VALUES)) {
  scenario(`web value: ${name}`, async ({ api }) => {
    const expected = await described(WEB_VALUES[name]());
    assert.deepEqual(await described(await api.web_value(name)), expected);
    assert.equal(await api.check_web_value(name, WEB_VALUES[name]()), true);
    assert.deepEqual(await described(await api.echo(WEB_VALUES[name]())), expected);
  });
}

scenario("web values inside others", async ({ api }) => {
  const { list } = await api.echo({ list: [WEB_VALUES.blob(), WEB_VALUES.response(), [WEB_VALUES.blob()]] });
  assert.deepEqual(await described(list[0]), await described(WEB_VALUES.blob()));
  assert.deepEqual(await described(list[1]), await described(WEB_VALUES.response()));
  assert.deepEqual(await described(list[2][0]), await described(WEB_VALUES.blob()));
});

scenario("a body that fails", async ({ api }) => {
  const response = await api.broken_response();
  const error = await failureOf(response.text());
  assert.ok(error instanceof RangeError);
  assert.equal(error.message, "out of paper");
});

scenario("a body that nobody reads to its end", async ({ api, monitor }) => {
  const name = `endless ${await api.id()}`;
  const response = await api.endless_response(name);
  const reader = response.body.getReader();
  assert.equal((await reader.read()).value.length, 1000);
  await reader.cancel();
  await monitor.occurred(name);
});

scenario("large values", async ({ api }) => {
  const text = "é".repeat(2 << 20);
  assert.equal(await api.echo(text), text);
  const bytes = Uint8Array.from({ length: 3 << 20 }, (_, index) => index * 7);
  assert.ok(same(await api.echo(bytes), bytes));
});

scenario("errors as values", async ({ api }) => {
  const made = await api.failure("cause");
  assert.ok(made instanceof Error);
  assert.equal(made.message, "outer");
  assert.ok(made.cause instanceof TypeError);
  const echoed = await api.echo(Object.assign(new RangeError("too far"), { by: 12 }));
  assert.ok(echoed instanceof RangeError);
  assert.equal(echoed.message, "too far");
  assert.equal(echoed.by, 12);
});

scenario("options object", async ({ api }) => {
  assert.deepEqual([...(await api.options(1, { scale: 2 }))], [1, 2]);
  assert.deepEqual([...(await api.options(1))], [1, null]);
  const error = await failureOf(api.options(1, { scael: 2 }));
  assert.ok(error instanceof TypeError);
  assert.match(error.message, /scael/);
});

// ---- capabilities

scenario("targets by reference", async ({ api }) => {
  const counter = await api.counter("targets by reference", 5);
  assert.equal(await counter.increment(2), 7);
  assert.equal(await counter.soon(1), 8);
  assert.equal(await counter.value, 8);
  release(counter);
});

scenario("functions by reference", async ({ api }) => {
  const adder = await api.adder(5);
  assert.equal(await adder(3), 8);
  release(adder);
  assert.equal(await api.call((left, right) => left * right, 6, 7), 42);
  assert.equal(await api.call(async (value) => [value], "later").then(([first]) => first), "later");
  assert.equal(await api.call(() => undefined), undefined);
});

scenario("bound methods by reference", async ({ api }) => {
  const increment = await api.stepper("bound methods", 3);
  assert.equal(await increment(4), 7);
  assert.equal(await increment(1), 8);
  release(increment);
});

scenario("nested stubs in arguments", async ({ api }) => {
  const target = new LocalCounter();
  const answers = await api.nested({ inner: { callbacks: [(value) => value * 2], target } });
  assert.deepEqual([...answers], [6, 14, 14]);
  const each = await api.each([(value) => value + 1, async (value) => value + 2], 10);
  assert.deepEqual([...each], [11, 12]);
  await target.whenDisposed();
  assert.equal(target.disposals, 1);
});

scenario("nested stubs in results", async ({ api, monitor }) => {
  const name = "nested stubs in results";
  const before = await monitor.disposals(name);
  const bundle = await api.bundle(name);
  assert.equal(await bundle.counters[0].increment(), 2);
  assert.equal(await bundle.counters[1].increment(), 3);
  assert.equal(await bundle.deep.adder(1), 101);
  release(bundle);
  await api.id();
  assert.equal(await monitor.disposals(name), before + 2);
});

scenario("stub sent back home", async ({ api, log }) => {
  const counter = await api.counter("stub sent back home", 1);
  const start = log.mark();
  assert.equal(await api.bump(counter, 5), 6);
  assert.equal(await counter.value, 6);
  assert.ok(!log.kinds(start).includes("in:push"), "the server called its own object through the client");
  const [returned] = await api.handback(counter);
  assert.equal(await returned.increment(), 7);
  assert.ok(!log.kinds(start).includes("in:push"), "the server called its own object through the client");
  release(counter, returned);
});

scenario("original object comes home", async ({ api }) => {
  const counter = await api.counter("original object comes home");
  assert.equal(await api.owns(counter), true);
  release(counter);
});

scenario("callback sent back home", async ({ api, log }) => {
  const target = new LocalCounter();
  const [returned] = await api.handback(target);
  const start = log.mark();
  assert.equal(await returned.increment(), 11);
  assert.deepEqual(log.kinds(start), [], "a call of our own object crossed the wire");
  release(returned);
  await target.whenDisposed();
});

scenario("promises in results", async ({ api, log }) => {
  const start = log.mark();
  const result = await api.eventually(20, 22);
  assert.deepEqual({ ...result, later: [...result.later] }, { sum: 42, later: [42] });
  assert.equal(roundTrips(log.kinds(start)), 1);
});

scenario("three parties", async ({ api, open }) => {
  const other = await open();
  const counter = await api.counter("three parties", 1);
  assert.equal(await other.remote.bump(counter, 2), 3);
  assert.equal(await other.remote.call(counter.increment, 4), 7, "a method travels with its object");
  assert.equal(await counter.value, 7);

  const target = new LocalCounter();
  await api.keep("three parties", target);
  const [proxy] = await other.remote.kept("three parties");
  assert.equal(await proxy.increment(5), 15);
  assert.equal(await proxy.value, 15);
  assert.equal(target.disposals, 0);
  release(proxy);
  await api.drop("three parties");
  await target.whenDisposed();
  release(counter);
});

scenario("introducer hangs up", async ({ api, monitor, open }) => {
  const other = await open();
  await other.remote.keep("introducer", new LocalCounter());
  const [proxy] = await api.kept("introducer");
  await monitor.watch("introducer");
  other.socket.terminate();
  assert.ok((await monitor.occurred("introducer")).length > 0);
  assert.ok((await failureOf(proxy.increment())) instanceof Error);
  release(proxy);
  await api.drop("introducer");
});

scenario("the client's own main object", async ({ open }) => {
  const main = new LocalCounter();
  const session = await open(main);
  assert.equal(await session.remote.main(5), 15);
  assert.equal(await session.remote.main(1), 16);
  assert.deepEqual(session.stats(), { imports: 1, exports: 1 });
  assert.equal(main.disposals, 0);
});

scenario("calls back and forth", async ({ api }) => {
  const descend = async (depth) => (depth === 0 ? "bottom" : api.call(descend, depth - 1));
  const answers = await Promise.all([30, 20, 10].map((depth) => api.call(descend, depth)));
  assert.deepEqual(answers, ["bottom", "bottom", "bottom"]);
});

// ---- pipelining

scenario("chain in one round trip", async ({ api, log }) => {
  const start = log.mark();
  const counter = api.counter("chain", 1);
  const first = counter.increment(1);
  const second = counter.soon(10);
  const total = api.add(first, second);
  assert.equal(await total, 14);
  release(counter, first, second, total);
  const kinds = log.kinds(start);
  assert.equal(roundTrips(kinds), 1, kinds.join(" "));
  assert.equal(kinds.filter((kind) => kind === "in:resolve").length, 1, kinds.join(" "));
});

scenario("property paths in one round trip", async ({ api, log }) => {
  const start = log.mark();
  assert.equal(await api.config.limits.depth, 3);
  assert.equal(await api.config.limits.width, undefined);
  const bundle = api.bundle("paths");
  assert.equal(await bundle.deep.adder(1), 101);
  const counter = api.counter("paths", 7);
  assert.equal(await api.add(api.config.limits.depth, counter.value), 10);
  assert.equal(roundTrips(log.kinds(start)), 4);
  release(bundle, counter);
});

scenario("pipelining on a slow promise", async ({ api, log }) => {
  const gate = Promise.withResolvers();
  const start = log.mark();
  const counter = api.after(() => gate.promise, "slow promise");
  const calls = [counter.increment(1), counter.increment(2), counter.value];
  const answers = Promise.all(calls);
  await api.id();
  const kinds = log.kinds(start);
  assert.equal(kinds.filter((kind) => kind === "out:push").length, 5, "the calls waited for the promise");
  gate.resolve();
  assert.deepEqual(await answers, [1, 3, 3]);
  release(counter, calls[0], calls[1]);
});

scenario("promises of this side as arguments", async ({ api, open }) => {
  const other = await open();
  assert.equal(await api.add(new RpcPromise(Promise.resolve(3)), 4), 7);
  const squared = other.remote.square(5);
  assert.equal(await api.add(squared, 1), 26);
  release(squared);
  const gate = Promise.withResolvers();
  const waiting = api.add(new RpcPromise(gate.promise), 1);
  await api.id();
  gate.resolve(9);
  assert.equal(await waiting, 10);
  const failing = failureOf(api.echo([new RpcPromise(Promise.reject(new RangeError("not today")))]));
  const error = await failing;
  assert.ok(error instanceof RangeError);
  assert.equal(error.message, "not today");
});

scenario("failure spreads along the pipeline", async ({ api }) => {
  for (const failed of [api.fail("type"), api.fail_later("type")]) {
    const method = failed.some.method(1);
    const onward = method.again();
    const argument = api.echo([failed]);
    const property = failed.some.property;
    for (const promise of [onward, method, argument, property, failed]) {
      const error = await failureOf(promise);
      assert.ok(error instanceof TypeError, String(error));
      assert.equal(error.message, "no such shape");
    }
    release(failed, method, onward, argument);
  }
});

scenario("what nobody awaits is not pulled", async ({ api, log }) => {
  const start = log.mark();
  const silent = api.square(3);
  const failing = api.fail("type");
  const last = api.square(4);
  assert.equal(await last, 16);
  release(silent, failing, last);
  await api.id();
  const kinds = log.kinds(start);
  assert.equal(kinds.filter((kind) => kind === "in:resolve").length, 2);
  assert.ok(!kinds.includes("in:reject"));
});

scenario("many calls at once", async ({ api }) => {
  const answers = await Promise.all(Array.from({ length: 500 }, (_, index) => api.square(index)));
  assert.deepEqual(answers, Array.from({ length: 500 }, (_, index) => index * index));
});

// ---- order

scenario("calls arrive in order", async ({ api }) => {
  const journal = await api.journal();
  const calls = [];
  for (let tag = 0; tag < 60; tag++) calls.push(tag % 2 ? journal.linger(tag) : journal.mark(tag));
  const marks = await journal.marks();
  assert.deepEqual([...marks], Array.from({ length: 60 }, (_, tag) => tag));
  await Promise.all(calls);
  release(journal, ...calls);
});

scenario("order holds before and after a promise resolves", async ({ api }) => {
  const promise = api.late_journal();
  const early = [0, 1, 2, 3].map((tag) => (tag % 2 ? promise.linger(tag) : promise.mark(tag)));
  const journal = await promise;
  const late = [4, 5, 6, 7].map((tag) => (tag % 2 ? promise.linger(tag) : journal.mark(tag)));
  assert.deepEqual([...(await journal.marks())], [0, 1, 2, 3, 4, 5, 6, 7]);
  await Promise.all([...early, ...late]);
  release(journal, ...early, ...late);
});

scenario("callbacks arrive in order", async ({ api }) => {
  const seen = [];
  const listener = (tag) => void seen.push(tag);
  await api.burst(listener, 40);
  assert.deepEqual(seen, Array.from({ length: 40 }, (_, tag) => tag));
});

// ---- maps

scenario("map: lists, single values and nothing", async ({ api }) => {
  const local = new LocalCounter();
  const counter = new RpcStub(local);
  for (const [value, mapped] of [[null, null], [undefined, undefined], [2, 12], [[1, 2], [13, 15]], [[], []]]) {
    const promise = api.echo(value);
    const result = await promise.map((i) => counter.increment(i));
    assert.deepEqual(Array.isArray(result) ? [...result] : result, mapped);
    release(promise);
  }
  release(counter);
  await local.whenDisposed();
});

scenario("map: results of any shape", async ({ api }) => {
  const users = api.echo([{ id: 1, name: "Ada", tags: ["a"] }, { id: 2, name: "Grace", tags: [] }]);
  const rows = async (map) => [...(await users.map(map))].map((row) => (Array.isArray(row) ? [...row] : row));
  assert.deepEqual(await rows((user) => user.name), ["Ada", "Grace"]);
  assert.deepEqual(await rows((user) => user), [{ id: 1, name: "Ada", tags: ["a"] }, { id: 2, name: "Grace", tags: [] }]);
  assert.deepEqual(await rows((user) => ({ id: user.id, square: api.square(user.id) })), [{ id: 1, square: 1 }, { id: 2, square: 4 }]);
  assert.deepEqual(await rows((user) => [user.id, "constant", api.add(user.id, 1)]), [[1, "constant", 2], [2, "constant", 3]]);
  assert.deepEqual((await rows((user) => user.tags)).flat(), ["a"]);
  assert.deepEqual(await rows((user) => user.missing), [undefined, undefined]);
  assert.deepEqual(await rows(() => undefined), [undefined, undefined]);
  assert.deepEqual(await rows((user) => api.echo({ date: new Date(0), big: 10n ** 30n, user })).then(([{ date, big, user }]) => [date, big, user.id]), [new Date(0), 10n ** 30n, 1]);
  release(users);
});

scenario("map: capabilities in results", async ({ api, monitor }) => {
  const name = "map: capabilities in results";
  const local = new LocalCounter();
  const outer = new RpcStub(local);
  const starts = api.echo([0, 1, 5]);
  const counters = await starts.map((start) => {
    const counter = api.counter(name, start);
    const value = counter.increment(3);
    outer.increment();
    return { counter, value };
  });
  assert.deepEqual(counters.map(({ value }) => value), [3, 4, 8]);
  assert.deepEqual(await Promise.all(counters.map(({ counter }) => counter.value)), [3, 4, 8]);
  assert.equal(await outer.value, 13);
  const before = await monitor.disposals(name);
  release(counters, outer, starts);
  await local.whenDisposed();
  let disposals = 0;
  for (let trip = 0; trip < 100 && disposals < before + 3; trip++) disposals = await monitor.disposals(name);
  assert.equal(disposals, before + 3);
});

scenario("map: inside another", async ({ api }) => {
  const rows = api.echo([{ cells: [1, 2], id: 1 }, { cells: [], id: 2 }, { cells: [3], id: 3 }]);
  const result = await rows.map((row) => row.cells.map((cell) => [api.square(cell), row.id]));
  assert.equal(JSON.stringify(result), "[[[1,1],[4,1]],[],[[9,3]]]");
  const cubes = await rows.map((row) => row.cells.map((cell) => api.echo([cell, cell]).map((same) => api.add(same, cell))));
  assert.equal(JSON.stringify(cubes), "[[[2,2],[4,4]],[],[[6,6]]]");
  release(rows, result, cubes);
});

scenario("map: what it captures", async ({ api, open }) => {
  const { remote: other } = await open();
  const late = new RpcPromise(Promise.resolve(40));
  const double = new RpcStub((number) => number * 2);
  const numbers = api.echo([1, 2]);
  const result = await numbers.map((i) => [double(i), other.square(i), api.add(late, i), api.add(api.config.limits.depth, i)]);
  assert.equal(JSON.stringify(result), "[[2,1,41,4],[4,4,42,5]]");
  release(numbers, result, double, late);
});

// npm capnweb never releases an import that a map has captured, so that nothing can be said of what is left.
scenario("map: imports that it captures", async ({ api }) => {
  const counter = await api.counter("map: imports");
  const config = api.config;
  const numbers = api.echo([1, 2]);
  const result = await numbers.map((i) => [counter.increment(i), config.limits.depth, api.add(config.limits.depth, i)]);
  assert.equal(JSON.stringify(result), "[[1,3,4],[3,3,5]]");
}, { endsSession: true });

scenario("map: one round trip", async ({ api, log }) => {
  const start = log.mark();
  const rows = api.echo([{ id: 1 }, { id: 2 }]);
  const mapped = rows.map((row) => ({ sum: api.add(row.id, 1) }));
  const twice = mapped.map((row) => api.square(row.sum));
  const [sums, squares] = await Promise.all([mapped, twice]);
  assert.deepEqual([sums.map(({ sum }) => sum), [...squares]], [[2, 3], [4, 9]]);
  assert.equal(roundTrips(log.kinds(start)), 1);
  release(rows, mapped, twice);
});

scenario("map: of a promise that takes its time", async ({ api }) => {
  const gate = Promise.withResolvers();
  const counter = api.after(() => gate.promise, "map of a slow promise");
  const mapped = counter.map((it) => [it.increment(1), it.increment(1)]);
  gate.resolve();
  const result = await mapped;
  assert.deepEqual([...result], [1, 2]);
  release(counter, mapped);
});

scenario("map: an error of one item", async ({ api }) => {
  const kinds = api.echo(["type"]);
  const error = await failureOf(kinds.map((kind) => ({ nested: [api.fail(kind)] })));
  assert.ok(error instanceof TypeError && error.message === "no such shape");
  const broken = await failureOf(kinds.map((kind) => kind.no_such_method()));
  assert.ok(broken instanceof TypeError);
  const failed = api.fail("type");
  assert.ok((await failureOf(failed.map((item) => api.square(item)))) instanceof TypeError);
  release(kinds, failed);
});

scenario("map: a large list", async ({ api }) => {
  const numbers = api.echo(Array.from({ length: 2000 }, (_, index) => index));
  const result = await numbers.map((i) => ({ i, square: api.square(i) }));
  assert.equal(result.length, 2000);
  assert.deepEqual(result[1999], { i: 1999, square: 1999 ** 2 });
  release(numbers, result);
});

// ---- lifetimes

scenario("dup and dispose", async ({ api, monitor }) => {
  const name = "dup and dispose";
  const before = await monitor.disposals(name);
  const counter = await api.counter(name);
  const second = counter.dup();
  release(counter);
  assert.equal(await second.increment(), 1);
  assert.match((await failureOf(Promise.resolve(counter.increment()))).message, /disposed/);
  assert.equal(await monitor.disposals(name), before);
  release(second);
  await api.id();
  assert.equal(await monitor.disposals(name), before + 1);
});

scenario("disposed of exactly once", async ({ api, monitor }) => {
  const name = "disposed of exactly once";
  const before = await monitor.disposals(name);
  const counter = await api.counter(name);
  const [again] = await api.handback(counter);
  const [third] = await api.handback(again);
  release(counter);
  release(third);
  await api.id();
  assert.equal(await monitor.disposals(name), before);
  release(again);
  await api.id();
  assert.equal(await monitor.disposals(name), before + 1);
  await api.id();
  assert.equal(await monitor.disposals(name), before + 1);
});

scenario("dropped without being awaited", async ({ api, monitor }) => {
  const name = "dropped";
  const before = await monitor.disposals(name);
  release(api.counter(name));
  await api.id();
  assert.equal(await monitor.disposals(name), before + 1);
});

scenario("arguments are released after the call", async ({ api }) => {
  const target = new LocalCounter();
  assert.equal(await api.bump(target, 1), 11);
  await target.whenDisposed();
  assert.equal(target.disposals, 1);
});

scenario("kept arguments live on", async ({ api }) => {
  const target = new LocalCounter();
  await api.keep("kept arguments", target);
  const [proxy] = await api.kept("kept arguments");
  assert.equal(await proxy.increment(), 11);
  release(proxy);
  await api.id();
  assert.equal(target.disposals, 0);
  await api.drop("kept arguments");
  await target.whenDisposed();
  assert.equal(target.disposals, 1);
});

// ---- all of it at once

/** A generator of pseudo-random integers (a linear congruential one): a scenario must run the same way every time. */
function randomIntegers(seed) {
  let state = BigInt(seed);
  return (below) => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & ((1n << 64n) - 1n);
    return Number((state >> 33n) % BigInt(below));
  };
}

/** What one step may do with the counters that are held, some of them promises; `later` is awaited at the end. */
const STEPS = [
  ({ api, held, create }) => void held.push(api.counter(create())),
  async ({ api, held, create }) => void held.push(await api.counter(create())),
  ({ api, held, create }) => void held.push(api.tardy(create())),
  ({ api, create }) => release(api.tardy(create())),
  ({ held, take }) => void held.push(take().dup()),
  ({ held, choose }) => release(held.splice(choose(held.length), 1)[0]),
  ({ held, choose }) => release(held.splice(choose(held.length), 1)[0]),
  async ({ take }) => assert.equal(typeof (await take().increment()), "number"),
  ({ take, later }) => void later.push(take().soon()),
  ({ take }) => release(take().increment()),
  async ({ take }) => assert.equal(typeof (await take().value), "number"),
  async ({ api, held, take }) => void held.push((await api.handback(take()))[0]),
  async ({ api, take }) => assert.equal(typeof (await api.bump(take(), 1)), "number"),
  ({ other, take, later }) => void later.push(other.bump(take(), 1)),
  ({ api, take }) => release(api.bump(take(), 1)),
  ({ api, take, later }) => {
    const term = take().increment();
    later.push(api.add(term, take().value));
    release(term);
  },
  ({ api, later }) => void later.push(api.call(async (value) => value, 7)),
  ({ api, take, later }) => {
    const counter = take().dup();
    later.push(api.call(() => counter.increment()).finally(() => release(counter)));
  },
  async ({ api, take }) => {
    const failing = api.fail("type");
    assert.ok((await failureOf(failing.increment(take()))) instanceof TypeError);
    release(failing);
  },
  ({ api, create }) => {
    const bundle = api.bundle(create());
    create();
    release(bundle.deep.adder(1), bundle);
  },
];

for (const seed of [1, 2, 3]) {
  scenario(`random use leaves nothing behind: ${seed}`, async ({ api, monitor, open, socket }) => {
    const name = `random use ${seed}`;
    const random = randomIntegers(seed);
    const { remote: other } = await open();
    const context = { api, other, held: [], later: [], choose: random, created: 0 };
    context.create = () => (context.created++, name);
    context.take = () => context.held[random(context.held.length)];
    for (let step = 0; step < 600; step++) {
      const count = context.held.length;
      await STEPS[random(count === 0 ? 4 : STEPS.length)](context);
      if (context.later.length > 20) await Promise.all(context.later.splice(0));
    }
    await Promise.all(context.later);
    release(...context.held);
    await api.id();
    assert.equal(socket.readyState, WebSocket.OPEN);
    let disposals = 0;
    for (let trip = 0; trip < 100 && disposals < context.created; trip++) disposals = await monitor.disposals(name);
    assert.equal(disposals, context.created);
  });
}

// ---- errors

const EXPECTED_ERRORS = {
  type: (error) => assert.ok(error instanceof TypeError && error.message === "no such shape"),
  range: (error) => assert.ok(error instanceof RangeError && error.message === "out of range"),
  plain: (error) => assert.equal(error.message, "näh \u{1f600}"),
  custom: (error) => {
    assert.equal(error.message, "please reboot");
    assert.equal(error.aisle, 7);
    assert.deepEqual(error.tags, ["brie", { ripe: true }]);
  },
  cause: (error) => {
    assert.equal(error.message, "outer");
    assert.ok(error.cause instanceof TypeError && error.cause.message === "inner");
  },
  aggregate: (error) => {
    assert.ok(error instanceof AggregateError);
    assert.equal(error.message, "several");
    assert.deepEqual(error.errors.map(({ message }) => message), ["one", "two"]);
    assert.ok(error.errors[0] instanceof TypeError && error.errors[1] instanceof RangeError);
  },
};

for (const [kind, check] of Object.entries(EXPECTED_ERRORS)) {
  scenario(`error: ${kind}`, async ({ api, log }) => {
    const start = log.mark();
    check(await failureOf(api.fail(kind)));
    check(await failureOf(api.fail_later(kind)));
    const rejections = log.texts(start).filter((text) => text.startsWith('["reject"'));
    assert.equal(rejections.length, 2);
    for (const text of rejections) {
      assert.ok(!/Traceback|\.py|File |line \d/.test(text), `a stack left the server: ${text}`);
    }
  });
}

scenario("errors of callbacks", async ({ api, monitor }) => {
  const thrown = () => Object.assign(new RangeError("callback broke"), { aisle: 9 });
  const callback = () => {
    throw thrown();
  };
  const error = await failureOf(api.call(callback));
  assert.ok(error instanceof RangeError);
  assert.equal(error.message, "callback broke");
  assert.equal(error.aisle, 9);
  const event = `callback error ${await api.id()}`;
  await api.note(event, callback);
  const noted = await monitor.occurred(event);
  assert.deepEqual({ ...noted }, { name: "RangeError", message: "callback broke", aisle: 9 });
});

scenario("an unsendable result fails its call alone", async ({ api, monitor }) => {
  const before = await monitor.disposals("unsendable");
  const bad = failureOf(api.unsendable());
  const good = api.square(5);
  const error = await bad;
  assert.ok(error instanceof TypeError);
  assert.equal(await good, 25);
  await api.id();
  assert.equal(await monitor.disposals("unsendable"), before + 1);
});

scenario("what is not reachable", async ({ api }) => {
  const vault = await api.vault();
  assert.equal(await vault.open(), "open");
  assert.match((await failureOf(vault.secret)).message, /secret/);
  for (const name of ["_combination", "__class__", "__init__", "dispose", "open_"]) {
    assert.equal(await vault[name], undefined, name);
    const error = await failureOf(vault[name]());
    assert.ok(error instanceof TypeError, name);
    assert.ok(error.message.includes(name), error.message);
  }
  assert.equal(await api.echo([1]).then(([one]) => one), 1);
  const adder = await api.adder(1);
  for (const name of ["__globals__", "__closure__", "__self__"]) assert.equal(await adder[name], undefined, name);
  release(vault, adder);
});

// ---- ends

const MALFORMED = {
  "not JSON": "this is no JSON",
  "not a list": '{"push": 1}',
  "unknown message": '["bogus", 1]',
  "empty message": "[]",
  "push of nothing": '["push"]',
  "pull of nothing": '["pull", 99]',
  "pull of a string": '["pull", "0"]',
  "call of nothing": '["push", ["pipeline", 77, ["square"], [1]]]',
  "release below zero": '["release", 0, 5]',
  "release of nothing": '["release", 12, 1]',
  "unknown expression": '["push", ["bogus", 1]]',
  "unescaped list": '["push", [1, 2]]',
  "too deep": `["push", ${"[[".repeat(300)}1${"]]".repeat(300)}]`,
  "deeper than any stack": "[".repeat(200_000),
  "too many digits": `["push", ["bigint", "${"9".repeat(20_000)}"]]`,
  "bytes that do not fit their kind": '["push", ["bytes", "AAA", "Float64Array"]]',
};

for (const [name, text] of Object.entries(MALFORMED)) {
  scenario(`abort: ${name}`, async ({ url }) => {
    const socket = new WebSocket(url);
    const received = [];
    socket.on("message", (data) => received.push(JSON.parse(data.toString())));
    socket.once("open", () => socket.send(text));
    const { code, reason } = await closed(socket);
    assert.equal(code, 3000);
    assert.ok(reason.length > 0 && Buffer.byteLength(reason) <= 123, reason);
    assert.deepEqual(received.map(([kind]) => kind), ["abort"]);
    assert.equal(received[0][1][0], "error");
    assert.ok(received[0][1][2].length > 0);
    return { reason, error: received[0][1] };
  });
}

scenario("a long abort reason is cut at a character", async ({ url }) => {
  const socket = new WebSocket(url);
  socket.once("open", () => socket.send(JSON.stringify(["é\u{1f600}".repeat(100)])));
  const { code, reason } = await closed(socket);
  assert.equal(code, 3000);
  assert.ok(Buffer.byteLength(reason) <= 123, reason);
  assert.ok(!reason.includes("\ufffd"), reason);
});

scenario("a call that is disposed of is cancelled where its method allows that", async ({ api, monitor }) => {
  const event = `endless call ${await api.id()}`;
  const promise = api.endless(event);
  const failure = failureOf(promise);
  await api.square(2);
  promise[Symbol.dispose]();
  assert.equal(await monitor.occurred(event), "cancelled");
  assert.ok((await failure) instanceof Error);
});

scenario("an abort fails all that is pending", async ({ api, socket }) => {
  const counter = await api.counter("abort");
  const broken = [];
  counter.onRpcBroken((error) => broken.push(error));
  const pending = [api.forever(), api.forever().anything.at.all].map(failureOf);
  const target = new LocalCounter();
  const holding = failureOf(api.forever(target));
  socket.send('["bogus"]');
  const errors = await Promise.all([...pending, holding]);
  for (const error of errors) assert.equal(error.message, errors[0].message);
  assert.ok(errors[0].message.includes("bogus"), errors[0].message);
  assert.deepEqual(broken, [errors[0]]);
  await target.whenDisposed();
  assert.equal(target.disposals, 1);
  assert.equal((await failureOf(api.square(1))).message, errors[0].message);
}, { endsSession: true });

scenario("a lost client disposes of what it held", async ({ api, monitor, socket }) => {
  const event = `lost client ${await api.id()}`;
  await api.guarded(`${event} disposed`);
  const called = Promise.withResolvers();
  const noted = failureOf(api.note(event, () => {
    called.resolve();
    return new Promise(() => {});
  }));
  await called.promise;
  socket.terminate();
  await noted;
  await monitor.occurred(`${event} disposed`);
  const { message } = await monitor.occurred(event);
  assert.ok(message.length > 0);
}, { endsSession: true });

scenario("a lost server fails all that is pending", async ({ api, socket }) => {
  const counter = await api.counter("lost server");
  const broken = new Promise((resolve) => counter.onRpcBroken(resolve));
  const target = new LocalCounter();
  const pending = [failureOf(api.forever()), failureOf(api.forever(target))];
  const gone = closed(socket);
  console.log(JSON.stringify({ ready: "a lost server fails all that is pending" }));
  const errors = await Promise.all(pending);
  await broken;
  await target.whenDisposed();
  const { code } = await gone;
  assert.ok(errors.every((error) => error instanceof Error));
  return { code, message: errors[0].message };
}, { endsSession: true });

scenario("abort: binary where JSON is spoken", async ({ url }) => {
  const socket = new WebSocket(url);
  socket.once("open", () => socket.send(Buffer.from('["pull", 0]'), { binary: true }));
  const { code, reason } = await closed(socket);
  assert.equal(code, 3000);
  assert.ok(reason.length > 0);
});

// ---- streams

/** A stream of this side: what it yields, and how it ends. */
function streamOf(chunks, { error, cancelled } = {}) {
  let next = 0;
  return new ReadableStream({
    pull(controller) {
      if (next < chunks.length) controller.enqueue(chunks[next++]);
      else if (error) controller.error(error);
      else controller.close();
    },
    cancel: () => cancelled?.(),
  });
}

/** Reads a stream by hand: iterating one of npm capnweb's as a result goes through its stub. */
async function collect(stream) {
  const chunks = [];
  const reader = stream.getReader();
  for (let item = await reader.read(); !item.done; item = await reader.read()) chunks.push(item.value);
  return chunks;
}

const numbersTo = (count) => Array.from({ length: count }, (_, index) => index);

scenario("readable streams as results", async ({ api }) => {
  assert.deepEqual(await collect(await api.numbers(5)), numbersTo(5));
  assert.deepEqual(await collect(await api.numbers(0)), []);
  assert.deepEqual(await collect(await api.numbers(2000)), numbersTo(2000));
});

scenario("readable streams as arguments", async ({ api }) => {
  assert.deepEqual([...(await api.collect(streamOf(numbersTo(5))))], numbersTo(5));
  assert.deepEqual([...(await api.collect(streamOf([{ a: [1] }, null, "ü", new Date(5), 10n ** 30n])))],
    [{ a: [1] }, null, "ü", new Date(5), 10n ** 30n]);
});

scenario("readable streams there and back", async ({ api }) => {
  assert.deepEqual(await collect(await api.echo(streamOf(["a", "b"]))), ["a", "b"]);
  const nested = await api.echo({ inner: [streamOf(["c"])] });
  assert.deepEqual(await collect(nested.inner[0]), ["c"]);
});

scenario("writable streams as arguments", async ({ api }) => {
  const chunks = [];
  let ended = 0;
  await api.fill(new WritableStream({ write: (chunk) => void chunks.push(chunk), close: () => void ended++ }), ["a", [1], null]);
  assert.deepEqual(chunks, ["a", [1], null]);
  assert.equal(ended, 1);
});

scenario("writable streams as results", async ({ api, monitor }) => {
  const event = `basin ${Math.random()}`;
  const writer = (await api.basin(event)).getWriter();
  for (const chunk of ["a", [1], null]) await writer.write(chunk);
  await writer.close();
  const { chunks, error } = await monitor.occurred(event);
  assert.deepEqual([[...chunks], error], [["a", [1], null], null]);
});

scenario("errors of sources reach readers", async ({ api }) => {
  const stream = await api.numbers(1, { kind: "custom" });
  const reader = stream.getReader();
  // An error may overtake chunks that were not read.
  const error = await failureOf((async () => {
    while (!(await reader.read()).done);
  })());
  assert.equal(error.message, "please reboot");
  assert.equal(error.aisle, 7);
  const mine = Object.assign(new RangeError("too far"), { by: 12 });
  const back = await failureOf(api.collect(streamOf([1], { error: mine })));
  assert.ok(back instanceof RangeError);
  assert.deepEqual([back.message, back.by], ["too far", 12]);
});

scenario("errors of sinks reach writers", async ({ api, monitor }) => {
  const event = `basin ${Math.random()}`;
  const writer = (await api.basin(event, { kind: "custom" })).getWriter();
  const error = await failureOf((async () => {
    for (let index = 0; index < 10; index++) await writer.write(index);
    await writer.close();
  })());
  assert.equal(error.message, "please reboot");
  const mine = new WritableStream({
    write(chunk) {
      if (chunk > 1) throw new RangeError("full");
    },
  });
  const back = await failureOf(api.fill(mine, [1, 2, 3, 4]));
  assert.ok(back instanceof RangeError);
  assert.equal(back.message, "full");
});

scenario("cancelling reaches sources", async ({ api, monitor }) => {
  const event = `cancelled ${Math.random()}`;
  const reader = (await api.numbers(null, { name: event })).getReader();
  assert.equal((await reader.read()).value, 0);
  await reader.cancel();
  await monitor.occurred(event);
  const cancelled = Promise.withResolvers();
  const endless = new ReadableStream({ pull: (controller) => controller.enqueue(1), cancel: () => cancelled.resolve() });
  assert.deepEqual([...(await api.first(endless, 2))], [1, 1]);
  await cancelled.promise;
});

scenario("aborting reaches sinks", async ({ api, monitor }) => {
  const event = `aborted ${Math.random()}`;
  const writer = (await api.basin(event)).getWriter();
  await writer.write("a chunk");
  await writer.abort(new Error("enough"));
  const { error } = await monitor.occurred(event);
  assert.equal(error, "enough");
  const aborted = Promise.withResolvers();
  await api.give_up(new WritableStream({ abort: aborted.resolve }), "custom");
  const reason = await aborted.promise;
  assert.deepEqual([reason.message, reason.aisle], ["please reboot", 7]);
});

scenario("large streams", async ({ api }) => {
  const chunks = Array.from({ length: 24 }, (_, index) => new Uint8Array(65_536).fill(index));
  const sum = 65_536 * (23 * 24) / 2;
  assert.deepEqual([...(await api.measure(streamOf(chunks)))], [24 * 65_536, sum]);
  const back = await collect(await api.pieces(24, 65_536));
  assert.ok(back.every((chunk, index) => same(chunk, chunks[index])));
  assert.equal(back.length, 24);
});

scenario("capabilities in chunks", async ({ api, monitor }) => {
  const name = `chunks ${Math.random()}`;
  let sum = 0;
  const reader = (await api.counters(name, 4)).getReader();
  for (let item = await reader.read(); !item.done; item = await reader.read()) {
    sum += await item.value.increment(1);
    release(item.value);
  }
  assert.equal(sum, 10);
  const counters = [new LocalCounter(), new LocalCounter()];
  assert.equal(await api.total(streamOf(counters)), 22);
  await Promise.all(counters.map((counter) => counter.whenDisposed()));
  while ((await monitor.disposals(name)) < 4);
});

// ---- on a CBOR connection only

scenario("bytes travel raw", async ({ api, log }) => {
  const bytes = Uint8Array.from({ length: 300_000 }, (_, index) => (index * 167) >> 3);
  const start = log.mark();
  assert.ok(same(await api.echo({ bytes, words: new Uint16Array(bytes.buffer) }), {
    bytes,
    words: new Uint16Array(bytes.buffer),
  }));
  const frames = log.entries.slice(start).filter(({ size }) => size > 1000);
  assert.deepEqual(frames.map(({ direction, form }) => `${direction}:${form}`), ["out:binary", "in:binary"]);
  // Both containers once each, and less than a kilobyte around them: base64 would have made them a third larger.
  for (const { size } of frames) assert.ok(size >= 600_000 && size < 601_000, `${size} bytes`);
});

const MALFORMED_CBOR = {
  "binary that is not CBOR": Buffer.from([0x82, 0x64, 0x70]),
  // ["push", tag 2 (a bignum) of h'01']
  "CBOR with a tag": Buffer.from([0x82, 0x64, 0x70, 0x75, 0x73, 0x68, 0xc2, 0x41, 0x01]),
};

for (const [name, data] of Object.entries(MALFORMED_CBOR)) {
  scenario(`abort: ${name}`, async ({ url }) => {
    const socket = new WebSocket(url, [CBOR_PROTOCOL]);
    socket.once("open", () => socket.send(data, { binary: true }));
    const { code, reason } = await closed(socket);
    assert.equal(code, 3000);
    assert.match(reason, /CBOR/);
  });
}
