// An npm capnweb server for the Python tests: node server.mjs [--cbor | --cbor-always]
// Prints {"port": N} when it listens on 127.0.0.1, and ends when its standard input does. A connection to
// /garbage?name=EVENT&send=TEXT is no session: it answers the first message with TEXT, and notes how that ended.
import { WebSocketServer } from "ws";
import { Api, World } from "./api.mjs";
import { CBOR_PROTOCOL, FrameLog, closed, startSession } from "./wire.mjs";

const cbor = process.argv.some((argument) => argument.startsWith("--cbor"));
const always = process.argv.includes("--cbor-always");
const world = new World();

// Without --cbor, `ws` chooses as it always does: the first of the protocols that the client names.
const chooseCbor = (protocols) => (protocols.has(CBOR_PROTOCOL) ? CBOR_PROTOCOL : false);
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  maxPayload: 64 << 20,
  ...(cbor ? { handleProtocols: chooseCbor } : {}),
});

function serveSession(socket) {
  const entry = { id: world.sessions.size + 1, socket };
  Object.assign(entry, startSession(socket, new Api(world, entry), { always }));
  world.sessions.set(entry.id, entry);
}

async function serveGarbage(socket, query) {
  const log = new FrameLog();
  socket.once("message", () => socket.send(query.get("send")));
  socket.on("message", (data) => log.noteText("in", data.toString()));
  world.happened(query.get("name"), { ...(await closed(socket)), texts: log.texts() });
}

server.on("connection", (socket, request) => {
  const url = new URL(request.url, "ws://127.0.0.1/");
  if (url.pathname === "/garbage") serveGarbage(socket, url.searchParams);
  else serveSession(socket);
});
server.on("listening", () => console.log(JSON.stringify({ port: server.address().port })));
process.stdin.resume().on("end", () => process.exit(0));
