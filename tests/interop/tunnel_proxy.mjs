// A proxy Worker that serves TCP tunnels, for the Python client: it does what Cloudflare's does with a request that has
// MF-Connect-Address (workers-sdk, ProxyServerWorker.ts), which npm wrangler ships inside its command line only.
import { connect } from "cloudflare:sockets";

const END = 1000;
const FAILURE = 1011;
const MAX_REASON_BYTES = 123;

/** A reason as long as a close frame takes, cut between two characters. */
function cut(reason) {
  const room = new Uint8Array(MAX_REASON_BYTES);
  const { written } = new TextEncoder().encodeInto(reason, room);
  return new TextDecoder().decode(room.subarray(0, written));
}

/** From the socket to the WebSocket: the end is 1000, an error is 1011 with its message. */
async function toWebSocket(socket, webSocket) {
  try {
    for await (const chunk of socket.readable) webSocket.send(chunk);
    webSocket.close(END);
  } catch ({ message }) {
    webSocket.close(FAILURE, cut(message));
  }
}

/** From the WebSocket to the socket, in order. A close is the end of what is written. */
function toSocket(webSocket, socket) {
  const writer = socket.writable.getWriter();
  let written = Promise.resolve();
  webSocket.addEventListener("message", ({ data }) => {
    const chunk = typeof data === "string" ? new TextEncoder().encode(data) : new Uint8Array(data);
    written = written.then(() => writer.write(chunk));
    written.catch(({ message }) => webSocket.close(FAILURE, cut(message)));
  });
  webSocket.addEventListener("close", () => written.then(() => writer.close()).catch(() => {}));
}

export default {
  async fetch(request) {
    const address = request.headers.get("MF-Connect-Address");
    if (request.headers.get("MF-Binding") !== "DB" || address === null) {
      return new Response(`Binding "${request.headers.get("MF-Binding")}" not found`, { status: 400 });
    }
    const [client, server] = Object.values(new WebSocketPair());
    server.binaryType = "arraybuffer";
    server.accept();
    const socket = connect(address);
    toSocket(server, socket);
    toWebSocket(socket, server).catch(() => {});
    return new Response(null, { status: 101, webSocket: client });
  },
};
