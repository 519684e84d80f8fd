// The main object that the JavaScript server offers: api.py holds the same one, method for method, in Python
// (hence the names with underscores).
// A World is what the sessions of one server share: who is connected, what was disposed of, what happened.
import "./wire.mjs";
import { isDeepStrictEqual } from "node:util";
import { VALUES, WEB_VALUES, described, same } from "./values.mjs";

const { RpcPromise, RpcTarget } = await import("capnweb");

export class World {
  sessions = new Map();
  kept = new Map();
  disposals = new Map();
  #events = new Map();

  disposed(name) {
    this.disposals.set(name, (this.disposals.get(name) ?? 0) + 1);
  }

  #event(name) {
    if (!this.#events.has(name)) this.#events.set(name, Promise.withResolvers());
    return this.#events.get(name);
  }

  happened(name, detail) {
    this.#event(name).resolve(detail);
  }

  occurred(name) {
    return this.#event(name).promise;
  }
}

export class Counter extends RpcTarget {
  #world;
  #name;
  #count;

  constructor(world, name, start = 0) {
    super();
    this.#world = world;
    this.#name = name;
    this.#count = start;
  }

  increment(by = 1) {
    return (this.#count += by);
  }

  async soon(by = 1) {
    await null;
    return this.increment(by);
  }

  get value() {
    return this.#count;
  }

  [Symbol.dispose]() {
    this.#world.disposed(this.#name);
  }
}

/** Writes down what arrives, in order; `linger` is asynchronous, but it begins when it is called. */
export class Journal extends RpcTarget {
  #marks = [];

  mark(tag) {
    this.#marks.push(tag);
  }

  async linger(tag) {
    this.#marks.push(tag);
    await new Promise(setImmediate);
  }

  marks() {
    return this.#marks;
  }
}

/** A target whose end is an event. */
class Guarded extends RpcTarget {
  #world;
  #name;

  constructor(world, name) {
    super();
    this.#world = world;
    this.#name = name;
  }

  [Symbol.dispose]() {
    this.#world.happened(this.#name, null);
  }
}

/** A target whose every member is off limits, but for one method. */
class Vault extends RpcTarget {
  secret = "an instance attribute";

  open() {
    return "open";
  }

  _combination() {
    return "0000";
  }
}

class OutOfCheese extends Error {
  constructor(message, aisle) {
    super(message);
    this.name = "OutOfCheese";
    this.aisle = aisle;
    this.tags = ["brie", { ripe: true }];
  }
}

const FAILURES = {
  type: () => new TypeError("no such shape"),
  range: () => new RangeError("out of range"),
  plain: () => new Error("näh \u{1f600}"),
  custom: () => new OutOfCheese("please reboot", 7),
  cause: () => new Error("outer", { cause: new TypeError("inner") }),
  text: () => "just a text",
  aggregate: () => new AggregateError([new TypeError("one"), new RangeError("two")], "several"),
};

export class Api extends RpcTarget {
  #world;
  #session;

  constructor(world, session) {
    super();
    this.#world = world;
    this.#session = session;
  }

  // ---- what a test asks about the server itself

  id() {
    return this.#session.id;
  }

  /** What session `id` holds at this moment. A call to this one is itself an export while it runs. */
  stats(id) {
    return this.#world.sessions.get(id).stats();
  }

  frames(id) {
    return this.#world.sessions.get(id).log.kinds();
  }

  forms(id) {
    return this.#world.sessions.get(id).log.entries.map(({ direction, form, size }) => [direction, form, size]);
  }

  texts(id) {
    return this.#world.sessions.get(id).log.texts();
  }

  disposals(name) {
    return this.#world.disposals.get(name) ?? 0;
  }

  occurred(name) {
    return this.#world.occurred(name);
  }

  hangup() {
    this.#session.socket.terminate();
  }

  // ---- values

  echo(value) {
    return value;
  }

  value(name) {
    return VALUES[name]();
  }

  check(name, value) {
    return same(value, VALUES[name]());
  }

  web_value(name) {
    return WEB_VALUES[name]();
  }

  async check_web_value(name, value) {
    const [received, expected] = [await described(value), await described(WEB_VALUES[name]())];
    return isDeepStrictEqual(received, expected) || received;
  }

  /** A response whose body fails after its first piece. */
  broken_response() {
    let pulls = 0;
    const pull = (controller) => {
      if (pulls++ === 0) controller.enqueue(new TextEncoder().encode("one"));
      else controller.error(new RangeError("out of paper"));
    };
    return new Response(new ReadableStream({ pull }));
  }

  /** A response without an end. Notes under `name` that nobody reads on. */
  endless_response(name) {
    const pull = (controller) => controller.enqueue(new Uint8Array(1000));
    return new Response(new ReadableStream({ pull, cancel: () => this.#world.happened(name, null) }));
  }

  square(number) {
    return number * number;
  }

  add(left, right) {
    return left + right;
  }

  options(first, { scale, ...unknown } = {}) {
    const names = Object.keys(unknown);
    if (names.length > 0) throw new TypeError(`unknown option ${names[0]}`);
    return [first, scale ?? null];
  }

  get config() {
    return { limits: { depth: 3 }, list: [10, 20, { deep: "x" }] };
  }

  // ---- capabilities

  counter(name, start = 0) {
    return new Counter(this.#world, name, start);
  }

  async tardy(name) {
    await new Promise(setImmediate);
    return new Counter(this.#world, name);
  }

  /** A counter that is there when `gate` has returned. */
  async after(gate, name) {
    await gate();
    return new Counter(this.#world, name);
  }

  journal() {
    return new Journal();
  }

  async late_journal() {
    await new Promise(setImmediate);
    return new Journal();
  }

  vault() {
    return new Vault();
  }

  /** A bound method: the function alone, which keeps its object alive. */
  stepper(name, start) {
    const counter = new Counter(this.#world, name, start);
    return (by) => counter.increment(by);
  }

  /** A counter that the caller holds, and whose end is noted as the event `name`. */
  guarded(name) {
    return new Guarded(this.#world, name);
  }

  adder(left) {
    return (right) => left + right;
  }

  bundle(name) {
    return {
      counters: [new Counter(this.#world, name, 1), new Counter(this.#world, name, 2)],
      deep: { adder: this.adder(100) },
    };
  }

  call(callback, ...args) {
    return callback(...args);
  }

  async each(callbacks, value) {
    return Promise.all(callbacks.map((callback) => callback(value)));
  }

  async nested({ inner }) {
    return [await inner.callbacks[0](3), await inner.target.increment(4), await inner.target.value];
  }

  async bump(counter, by) {
    return counter.increment(by);
  }

  /** A promise in a result is replaced by what it becomes before the caller sees it. */
  eventually(left, right) {
    const sum = new RpcPromise(Promise.resolve(left + right));
    return { sum, later: [new RpcPromise(Promise.resolve(left + right))] };
  }

  async burst(listener, count) {
    await Promise.all(Array.from({ length: count }, (_, tag) => listener(tag)));
  }

  /** In a list: npm capnweb mistakes a result that is nothing but the caller's own object for a promise. */
  handback(stub) {
    return [stub.dup()];
  }

  async handback_after(gate, stub) {
    await gate();
    return this.handback(stub);
  }

  keep(name, stub) {
    this.#world.kept.set(name, stub.dup());
  }

  kept(name) {
    return [this.#world.kept.get(name).dup()];
  }

  drop(name) {
    this.#world.kept.get(name)[Symbol.dispose]();
    this.#world.kept.delete(name);
  }

  /** Notes under `name` how the kept stub `name` broke. */
  watch(name) {
    this.#world.kept.get(name).onRpcBroken((error) => this.#world.happened(name, String(error?.message)));
  }

  /** Notes under `name` how the call of `callback` failed. */
  async note(name, callback) {
    try {
      await callback();
    } catch (error) {
      this.#world.happened(name, { name: error.name, message: error.message, aisle: error.aisle ?? null });
    }
  }

  /** Calls the main object of the peer. */
  main(by) {
    return this.#session.remote.increment(by);
  }

  /** Unfinished until the session ends; until then it holds its arguments. */
  forever() {
    return new Promise(() => {});
  }

  // ---- streams

  /** `count` numbers, or numbers without end; a failure of `kind` after them. `name` is noted when it is cancelled. */
  numbers(count, { kind, name } = {}) {
    let next = 0;
    return new ReadableStream({
      pull: (controller) => {
        if (count === null || next < count) controller.enqueue(next++);
        else if (kind) controller.error(FAILURES[kind]());
        else controller.close();
      },
      cancel: () => this.#world.happened(name, null),
    });
  }

  async collect(stream) {
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    return chunks;
  }

  /** The first `count` chunks; then it lets go of the stream. */
  async first(stream, count) {
    const chunks = [];
    const reader = stream.getReader();
    while (chunks.length < count) chunks.push((await reader.read()).value);
    await reader.cancel();
    return chunks;
  }

  /** How many bytes a stream has, and the sum of them. */
  async measure(stream) {
    let [length, sum] = [0, 0];
    for await (const chunk of stream) {
      length += chunk.length;
      for (const byte of chunk) sum += byte;
    }
    return [length, sum];
  }

  /** `count` chunks of bytes. */
  pieces(count, size) {
    let index = 0;
    return new ReadableStream({
      pull: (controller) => {
        if (index < count) controller.enqueue(new Uint8Array(size).fill(index++));
        else controller.close();
      },
    });
  }

  async fill(stream, chunks) {
    const writer = stream.getWriter();
    for (const chunk of chunks) await writer.write(chunk);
    await writer.close();
  }

  async give_up(stream, kind) {
    const writer = stream.getWriter();
    await writer.write("a chunk");
    await writer.abort(FAILURES[kind]());
  }

  /** A stream to be written. What becomes of it is noted as the event `name`; with `kind`, the second write fails. */
  basin(name, { kind } = {}) {
    const chunks = [];
    return new WritableStream({
      write(chunk) {
        if (kind && chunks.length > 0) throw FAILURES[kind]();
        chunks.push(chunk);
      },
      close: () => this.#world.happened(name, { chunks, error: null }),
      abort: (error) => this.#world.happened(name, { chunks, error: error.message }),
    });
  }

  /** Counters as chunks. */
  counters(name, count) {
    let start = 0;
    // npm capnweb takes streams of this making only, on Node: not those of a pipe, nor of ReadableStream.from().
    return new ReadableStream({
      pull: (controller) => {
        if (start < count) controller.enqueue(new Counter(this.#world, name, start++));
        else controller.close();
      },
    });
  }

  async total(stream) {
    let sum = 0;
    for await (const counter of stream) {
      sum += await counter.increment(1);
      counter[Symbol.dispose]();
    }
    return sum;
  }

  // ---- errors

  fail(kind) {
    throw FAILURES[kind]();
  }

  async fail_later(kind) {
    await new Promise(setImmediate);
    throw FAILURES[kind]();
  }

  failure(kind) {
    return FAILURES[kind]();
  }

  unsendable() {
    return { fine: new Counter(this.#world, "unsendable"), wrong: [Symbol("not a value")] };
  }
}
