// A dispatch namespace and a service used by npm capnweb on Node: node dispatch.mjs URL [--cbor]
// URL is the proxy's connection string, with ws: for its scheme. Prints one line of JSON with what came of each use.
import { CBOR_PROTOCOL, WebSocket, connect, roundTrips } from "./wire.mjs";

const protocols = process.argv.includes("--cbor") ? [CBOR_PROTOCOL] : [];
const sockets = [];

async function session(parameters) {
  const url = new URL(process.argv[2]);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  const opened = await connect(url.href, { protocols });
  sockets.push(opened.socket);
  return opened;
}

const dispatched = (get) => ({ "MF-Binding": "DISPATCH", "MF-Dispatch-Namespace-Options": JSON.stringify(get) });

async function thrownBy(promise) {
  try {
    return { value: await promise };
  } catch ({ name, message }) {
    return { name, message };
  }
}

/** The status of a handshake that is refused. */
function refusal(parameters) {
  const url = new URL(process.argv[2]);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  return new Promise((resolve) => {
    const socket = new WebSocket(url.href);
    socket.on("unexpected-response", (_request, { statusCode }) => resolve(statusCode));
    socket.on("error", () => {});
    socket.on("open", () => resolve("open"));
  });
}

const { remote: tenant } = await session(dispatched({ name: "tenant", args: { name: "ä" }, options: { limits: { cpuMs: 5 } } }));
const { remote: nobody } = await session(dispatched({ name: "nobody" }));
const { remote: namespace, log } = await session({ "MF-Binding": "DISPATCH" });
const { remote: admin } = await session({ "MF-Binding": "ADMIN" });

const start = log.mark();
const pipelined = await namespace.get("plain").hello("World");
const report = {
  hello: await tenant.hello("World"),
  given: await tenant.given(),
  nobody: await thrownBy(nobody.hello("World")),
  pipelined,
  roundTrips: roundTrips(log.kinds(start)),
  unknown: await thrownBy(namespace.get("nobody").hello("World")),
  admin: await admin.role(),
  broken: await refusal({ "MF-Binding": "DISPATCH", "MF-Dispatch-Namespace-Options": "{" }),
  misplaced: await refusal({ "MF-Binding": "ADMIN", "MF-Dispatch-Namespace-Options": '{"name":"a"}' }),
};
console.log(JSON.stringify(report));
for (const socket of sockets) socket.terminate();
