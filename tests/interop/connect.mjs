// The RPC channel of connect and fetcher bindings used by npm capnweb on Node: node connect.mjs DB_URL WEB_URL [--cbor]
// Reads {address, words, large} from standard input, prints one line of JSON with what came of each use, and ends.
import { text } from "node:stream/consumers";
import { CBOR_PROTOCOL, connect } from "./wire.mjs";

const protocols = process.argv.includes("--cbor") ? [CBOR_PROTOCOL] : [];
const { remote: db, socket: dbSocket } = await connect(process.argv[2], { protocols });
const { remote: web, socket: webSocket } = await connect(process.argv[3], { protocols });
const { address, words, large } = JSON.parse(await text(process.stdin));

const encode = (string) => new TextEncoder().encode(string);

async function thrownBy(promise) {
  try {
    return { value: await promise };
  } catch ({ name, message }) {
    return { name, message };
  }
}

/** What comes back of words that are sent, and then of the end. */
async function echoed() {
  const { readable, writable } = await db.connect(address);
  const writer = writable.getWriter();
  for (const word of words) await writer.write(encode(word));
  await writer.close();
  return text(readable);
}

/** How many bytes come back of many, sent and read at a time. */
async function echoedMuch() {
  const { readable, writable } = await db.connect(address);
  const back = text(readable);
  const writer = writable.getWriter();
  for (let sent = 0; sent < large; sent += 65536) await writer.write(encode("x".repeat(65536)));
  await writer.close();
  return (await back).length;
}

/** Streams that are let go of. */
async function letGo() {
  const { readable, writable } = await db.connect(address);
  await readable.cancel();
  await writable.abort();
}

async function fetched() {
  const response = await web.fetch("https://any/path?q", { method: "POST", headers: { "x-a": "b" }, body: "question" });
  return { status: response.status, header: response.headers.get("x-own"), body: await response.text() };
}

const report = {
  echoed: await echoed(),
  echoedMuch: await echoedMuch(),
  letGo: await thrownBy(letGo()),
  refused: await thrownBy((async () => db.connect("127.0.0.2:80"))()),
  connectionString: await db.getConnectionString(),
  fetched: await fetched(),
};
console.log(JSON.stringify(report));
dbSocket.close();
webSocket.close();
