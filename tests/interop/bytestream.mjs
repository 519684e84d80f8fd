// npm capnweb sessions over Node's byte streams (a TCP socket, or standard input and output), on each of its encoding
// levels, with both framings. The transports follow npm capnweb's documented interfaces.
import net from "node:net";
import { Token, Type, decode, encode } from "cborg";
import { FrameLog } from "./wire.mjs";

const { RpcSession } = await import("capnweb");

const TEXT = 1;
const BINARY = 2;
const HEADER_BYTES = 5;

// ---- framings: `write` makes the bytes of one message, `read` takes messages off the front of what came

const FRAMINGS = {
  length: {
    write({ data, binary }) {
      const header = Buffer.alloc(HEADER_BYTES);
      header.writeUInt8(binary ? BINARY : TEXT);
      header.writeUInt32BE(data.length, 1);
      return Buffer.concat([header, data]);
    },
    read(buffer) {
      if (buffer.length < HEADER_BYTES) return null;
      const end = HEADER_BYTES + buffer.readUInt32BE(1);
      if (buffer.length < end) return null;
      return { data: buffer.subarray(HEADER_BYTES, end), binary: buffer[0] === BINARY, rest: buffer.subarray(end) };
    },
  },
  newline: {
    write: ({ data }) => Buffer.concat([data, Buffer.from("\n")]),
    read(buffer) {
      const end = buffer.indexOf("\n");
      return end < 0 ? null : { data: buffer.subarray(0, end), binary: false, rest: buffer.subarray(end + 1) };
    },
  },
};

// ---- encodings, by encoding level

const NON_NEGATIVE = 2;
const NEGATIVE = 3;
const EPOCH_SECONDS = 1;

function bytesOf(integer) {
  const digits = integer.toString(16);
  return Uint8Array.from(Buffer.from(digits.padStart(digits.length + (digits.length % 2), "0"), "hex"));
}

const integerOf = (bytes) => BigInt(`0x${Buffer.from(bytes).toString("hex") || "0"}`);

// A bigint is a bignum whatever its size: a bare integer is a number.
const CLONABLE = {
  mapSorter: null,
  typeEncoders: {
    bigint: (value) => [
      new Token(Type.tag, value < 0n ? NEGATIVE : NON_NEGATIVE),
      new Token(Type.bytes, bytesOf(value < 0n ? -1n - value : value)),
    ],
    Date: (value) => [new Token(Type.tag, EPOCH_SECONDS), new Token(Type.float, value.getTime() / 1000)],
  },
};
const CLONED = {
  tags: {
    [NON_NEGATIVE]: (content) => integerOf(content()),
    [NEGATIVE]: (content) => -1n - integerOf(content()),
    [EPOCH_SECONDS]: (content) => new Date(Math.round(content() * 1000)),
  },
};

function holdsBytes(tree) {
  if (tree instanceof Uint8Array) return true;
  return tree !== null && typeof tree === "object" && Object.values(tree).some(holdsBytes);
}

/** What the log shows of a value: JSON has no bigints, and is slow with bytes. */
function readable(_key, value) {
  if (typeof value === "bigint") return `${value}n`;
  return value instanceof Uint8Array ? `${value.length} bytes` : value;
}

const binary = (data) => ({ data: Buffer.from(data), binary: true });

const ENCODINGS = {
  string: {
    write: (text) => ({ data: Buffer.from(text), binary: false }),
    read: (data) => data.toString(),
  },
  jsonCompatible: {
    write(tree) {
      if (holdsBytes(tree)) throw new Error("bytes on a level that has none");
      return binary(encode(tree, { mapSorter: null }));
    },
    read: (data) => decode(data, { allowUndefined: false }),
  },
  jsonCompatibleWithBytes: {
    write: (tree) => binary(encode(tree, { mapSorter: null })),
    // A message without bytes may come as JSON text.
    read: (data, isBinary) => (isBinary ? decode(data, { allowUndefined: false }) : JSON.parse(data.toString())),
  },
  structuredClonable: {
    write: (tree) => binary(encode(tree, CLONABLE)),
    read: (data) => decode(data, CLONED),
  },
};

class ByteStreamTransport {
  #incoming = Buffer.alloc(0);
  #queue = [];
  #waiting = null;
  #failure = null;

  constructor(readable, writable, log, { level = "string", framing = "length" } = {}) {
    this.encodingLevel = level;
    this.writable = writable;
    this.log = log;
    this.encoding = ENCODINGS[level];
    this.framing = FRAMINGS[framing];
    readable.on("data", (data) => this.#arrived(data));
    readable.on("end", () => this.#fail(new Error("Peer closed the byte stream.")));
    readable.on("close", () => this.#fail(new Error("The byte stream was closed.")));
    readable.on("error", (error) => this.#fail(error));
    writable.on("error", (error) => this.#fail(error));
  }

  send(message) {
    const frame = this.encoding.write(message);
    this.#note("out", message, frame);
    this.writable.write(this.framing.write(frame));
    // At the level "string" a result would be taken for a promise.
    return this.encodingLevel === "string" ? undefined : frame.data.length;
  }

  receive() {
    if (this.#queue.length > 0) return Promise.resolve(this.#queue.shift());
    if (this.#failure) return Promise.reject(this.#failure);
    this.#waiting = Promise.withResolvers();
    return this.#waiting.promise;
  }

  abort() {
    this.writable.end();
  }

  #arrived(data) {
    this.#incoming = Buffer.concat([this.#incoming, data]);
    let frame;
    while ((frame = this.framing.read(this.#incoming)) !== null) {
      this.#incoming = frame.rest;
      const message = this.encoding.read(frame.data, frame.binary);
      this.#note("in", message, frame);
      if (this.#waiting) {
        this.#waiting.resolve(message);
        this.#waiting = null;
      } else {
        this.#queue.push(message);
      }
    }
  }

  #note(direction, message, { data, binary }) {
    if (this.encodingLevel === "string") {
      this.log.noteText(direction, message);
    } else {
      const text = JSON.stringify(message, readable);
      const form = binary ? "binary" : "text";
      this.log.entries.push({ direction, kind: message[0], message: text, form, size: data.length });
    }
  }

  #fail(error) {
    this.#failure ??= error;
    this.#waiting?.reject(this.#failure);
    this.#waiting = null;
  }
}

/** Starts a session over a pair of byte streams. */
export function startStreamSession(readable, writable, main, options = {}) {
  const log = new FrameLog();
  const session = new RpcSession(new ByteStreamTransport(readable, writable, log, options), main);
  return { log, session, remote: session.getRemoteMain(), stats: () => session.getStats() };
}

/** Connects to tcp://HOST:PORT. */
export async function connectStream(url, { main, ...options } = {}) {
  const { hostname, port } = new URL(url);
  const socket = net.connect({ host: hostname, port: Number(port), noDelay: true });
  const opened = Promise.withResolvers();
  socket.once("connect", opened.resolve);
  socket.once("error", opened.reject);
  await opened.promise;
  socket.terminate = () => socket.destroy();
  return { socket, ...startStreamSession(socket, socket, main, options) };
}
