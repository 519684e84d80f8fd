// What npm capnweb writes: node expressions.mjs < CASES, which test_wire.py makes.
// A case is a list of steps with one fresh session, whose peer says only what the steps say. Prints, for each step of
// each case, the texts of the messages that it led to. test_wire.py does the same steps with ours.
import { text } from "node:stream/consumers";

const { RpcSession, RpcStub, RpcTarget } = await import("capnweb");

/** Writes down what is sent; receives what `say` is told. */
class Recorder {
  sent = [];
  #said = [];
  #waiting = null;

  send(message) {
    this.sent.push(message);
  }

  receive() {
    if (this.#said.length > 0) return Promise.resolve(this.#said.shift());
    this.#waiting = Promise.withResolvers();
    return this.#waiting.promise;
  }

  say(message) {
    if (!this.#waiting) return this.#said.push(message);
    this.#waiting.resolve(message);
    this.#waiting = null;
  }

  abort() {}
}

class Target extends RpcTarget {}

const ERRORS = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };

const bytesOf = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));

function error({ name, message, props = {}, cause, errors }, names) {
  const inner = cause === undefined ? undefined : { cause: value(cause, names) };
  const items = errors?.map((one) => value(one, names));
  const made = items ? new AggregateError(items, message, inner) : new (ERRORS[name] ?? Error)(message, inner);
  if (made.name !== name) made.name = name;
  for (const [key, item] of Object.entries(props)) made[key] = value(item, names);
  return made;
}

function typedArray(kind, hex) {
  const { buffer } = bytesOf(hex);
  return kind === "ArrayBuffer" ? buffer : new globalThis[kind](buffer);
}

// Not ReadableStream.from: what Node 20 makes there, npm capnweb does not take for a stream.
function streamOf(chunks) {
  const start = (controller) => {
    for (const chunk of chunks) controller.enqueue(chunk);
    controller.close();
  };
  return new ReadableStream({ start });
}

/** The value of a description: a list that begins with its kind. */
function value([kind, ...parts], names) {
  const [first, second] = parts;
  switch (kind) {
    case "json": return first;
    case "double": return new DataView(bytesOf(first).buffer).getFloat64(0);
    case "text": return String.fromCharCode(...first);
    case "undefined": return undefined;
    case "bigint": return BigInt(first);
    case "date": return new Date(first ?? NaN);
    case "bytes": return bytesOf(first);
    case "array": return typedArray(first, second);
    case "list": return parts.map((part) => value(part, names));
    case "object": return Object.fromEntries(first.map(([key, item]) => [key, value(item, names)]));
    case "error": return error(first, names);
    case "url": return new URL(first);
    case "headers": return new Headers(first);
    case "request": return new Request(first, second);
    case "response": return new Response(first, second);
    case "blob": return new Blob([bytesOf(first)], { type: second });
    case "stream": return streamOf(first.map((part) => value(part, names)));
    case "writable": return new WritableStream();
    case "function": return () => {};
    case "target": return new Target();
    case "stub": return new RpcStub(value(first, names));
    case "name": return names[first];
    case "unsendable": return Symbol("unsendable");
  }
  throw new TypeError(`no value is described as ${kind}`);
}

const member = (of, path) => path.reduce((reached, name) => reached[name], of);

/** What the session of a case offers: it gives what the case describes. */
class Main extends RpcTarget {
  #result;
  #names;

  constructor(result, names) {
    super();
    this.#result = result;
    this.#names = names;
  }

  give() {
    return value(this.#result, this.#names);
  }

  fail() {
    throw value(this.#result, this.#names);
  }

  take() {}
}

const STEPS = {
  call: (names, { as, on, path, args }) => {
    names[as] = member(names[on], path)(...args.map((arg) => value(arg, names)));
  },
  get: (names, { as, on, path }) => {
    names[as] = member(names[on], path);
  },
  pull: (names, { on }) => void names[on].then(() => {}, () => {}),
  dup: (names, { as, on }) => {
    names[as] = names[on].dup();
  },
  dispose: (names, { on }) => names[on][Symbol.dispose](),
  say: (names, { message }, recorder) => recorder.say(JSON.stringify(message)),
};

/** Lets everything happen that can: streams take several turns of the loop. */
async function settle() {
  for (let turn = 0; turn < 12; turn++) await new Promise(setImmediate);
}

async function run({ result, steps }) {
  const recorder = new Recorder();
  const names = {};
  const session = new RpcSession(recorder, new Main(result, names));
  names.api = session.getRemoteMain();
  const heard = [];
  for (const step of steps) {
    try {
      STEPS[step.do](names, step, recorder);
    } catch (error) {
      recorder.sent.push(`(${error})`);
    }
    await settle();
    heard.push(recorder.sent.splice(0));
  }
  return heard;
}

// A promise that nobody awaits may fail when a case is over.
process.on("unhandledRejection", () => {});
const cases = JSON.parse(await text(process.stdin));
console.log(JSON.stringify(await Promise.all(cases.map(run))));
process.exit(0);
