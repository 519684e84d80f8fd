// How the JavaScript peers talk: npm capnweb sessions over `ws`, in JSON or in CBOR, with every frame written down.
// The two transports follow npm capnweb's documented interfaces; what a test may ask about the wire is FrameLog's.
import WebSocket from "ws";
import { decode, encode } from "cborg";

// npm capnweb looks for the browser's WebSocket; Node 20 has none.
globalThis.WebSocket ??= WebSocket;
export { WebSocket };
const { RpcSession, WebSocketTransport } = await import("capnweb");

export const CBOR_PROTOCOL = "capnweb.cbor";

// The keys of an object keep their order, as they do in JSON.
const AS_THEY_COME = { mapSorter: null };

/** Every message of one connection, in the order in which it was sent or received. */
export class FrameLog {
  entries = [];

  note(direction, message, form, size) {
    this.entries.push({ direction, kind: message[0], message: JSON.stringify(message), form, size });
  }

  noteText(direction, text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      message = ["(not JSON)", text];
    }
    this.note(direction, message, "text", text.length);
  }

  /** The messages since `start`, as "out:push", "in:resolve", ... */
  kinds(start = 0) {
    return this.entries.slice(start).map(({ direction, kind }) => `${direction}:${kind}`);
  }

  mark() {
    return this.entries.length;
  }

  texts(start = 0) {
    return this.entries.slice(start).map(({ message }) => message);
  }
}

/** Runs of messages one way before the next came the other way: "push push pull, then resolve" is one trip. */
export function roundTrips(kinds, first = "out") {
  const directions = kinds.filter((kind) => !kind.endsWith(":release")).map((kind) => kind.split(":")[0]);
  return directions.filter((direction, index) => direction === first && directions[index - 1] !== first).length;
}

/** npm capnweb's own WebSocketTransport, with a log. */
class JsonTransport {
  constructor(socket, log) {
    this.inner = new WebSocketTransport(socket);
    this.log = log;
  }

  send(text) {
    this.log.noteText("out", text);
    this.inner.send(text);
  }

  async receive() {
    const text = await this.inner.receive();
    this.log.noteText("in", text);
    return text;
  }

  abort(reason) {
    this.inner.abort(reason);
  }
}

/**
 * The CBOR form, on npm capnweb's encoding level for it. A message with bytes goes as a binary frame, bytes raw; one
 * without goes as text, unless `always` asks for binary. A string that UTF-8 cannot hold forces text, with base64.
 */
class CborTransport {
  encodingLevel = "jsonCompatibleWithBytes";
  #queue = [];
  #waiting = null;
  #failure = null;

  constructor(socket, log, { always = false } = {}) {
    this.socket = socket;
    this.log = log;
    this.always = always;
    socket.binaryType = "nodebuffer";
    socket.on("message", (data, isBinary) => this.#arrived(data, isBinary));
    socket.on("close", (code, reason) => this.#fail(new Error(`Peer closed WebSocket: ${code} ${reason}`)));
    socket.on("error", (error) => this.#fail(error));
  }

  send(message) {
    const shape = survey(message);
    const binary = (this.always || shape.bytes) && shape.wellFormed;
    const data = binary ? encode(message, AS_THEY_COME) : JSON.stringify(message, bytesAsBase64);
    this.log.note("out", message, binary ? "binary" : "text", data.length);
    this.socket.send(data, { binary });
    return data.length;
  }

  receive() {
    if (this.#queue.length > 0) return Promise.resolve(this.#queue.shift());
    if (this.#failure) return Promise.reject(this.#failure);
    this.#waiting = Promise.withResolvers();
    return this.#waiting.promise;
  }

  abort(reason) {
    this.socket.close(3000, Buffer.from(String(reason?.message ?? reason)).subarray(0, 123).toString());
  }

  #arrived(data, isBinary) {
    const message = isBinary ? decode(data, { allowUndefined: false }) : JSON.parse(data.toString());
    this.log.note("in", message, isBinary ? "binary" : "text", data.length);
    if (this.#waiting) {
      this.#waiting.resolve(message);
      this.#waiting = null;
    } else {
      this.#queue.push(message);
    }
  }

  #fail(error) {
    this.#failure ??= error;
    this.#waiting?.reject(this.#failure);
    this.#waiting = null;
  }
}

function survey(tree) {
  if (typeof tree === "string") return { bytes: false, wellFormed: tree.isWellFormed() };
  if (tree instanceof Uint8Array) return { bytes: true, wellFormed: true };
  if (tree === null || typeof tree !== "object") return { bytes: false, wellFormed: true };
  const parts = [...Object.keys(tree).filter(() => !Array.isArray(tree)), ...Object.values(tree)].map(survey);
  return { bytes: parts.some((part) => part.bytes), wellFormed: parts.every((part) => part.wellFormed) };
}

// A Buffer's toJSON runs before a replacer sees the value; `this[key]` is the value as it was.
function bytesAsBase64(key, value) {
  const original = this[key];
  return original instanceof Uint8Array ? Buffer.from(original).toString("base64") : value;
}

/** Starts a session on `socket`, in the codec that its subprotocol names. */
export function startSession(socket, main, options = {}) {
  const log = new FrameLog();
  const cbor = socket.protocol === CBOR_PROTOCOL;
  const transport = cbor ? new CborTransport(socket, log, options) : new JsonTransport(socket, log);
  const session = new RpcSession(transport, main);
  return { socket, log, session, remote: session.getRemoteMain(), stats: () => session.getStats() };
}

/** Connects to `url` and waits until the socket is open: the subprotocol is known only then. */
export async function connect(url, { protocols = [], main, ...options } = {}) {
  const socket = new WebSocket(url, protocols);
  const opened = Promise.withResolvers();
  // Messages that follow the handshake in the same packet must find the session's listeners.
  socket.once("open", () => opened.resolve(startSession(socket, main, options)));
  socket.once("error", opened.reject);
  return opened.promise;
}

/** Resolves to {code, reason} when `socket` has closed. */
export function closed(socket) {
  return new Promise((resolve) => {
    socket.once("close", (code, reason) => resolve({ code, reason: reason.toString() }));
  });
}
