// A KV namespace used by npm capnweb on Node: node kv.mjs URL [--cbor]
// Prints one line of JSON with what came of each use, and ends.
import { CBOR_PROTOCOL, connect, roundTrips } from "./wire.mjs";

const protocols = process.argv.includes("--cbor") ? [CBOR_PROTOCOL] : [];
const { remote: kv, log, socket } = await connect(process.argv[2], { protocols });

function streamOf(...chunks) {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
}

async function textOf(stream) {
  return new Response(stream).text();
}

async function thrownBy(call) {
  try {
    return { value: await call() };
  } catch ({ name, message }) {
    return { name, message };
  }
}

async function values() {
  await kv.put("values:text", "ü");
  await kv.put("values:bytes", new Uint8Array([1, 255]));
  await kv.put("values:buffer", new Uint16Array([1, 256]).buffer);
  await kv.put("values:view", new Uint16Array([1, 256]));
  await kv.put("values:number", 17);
  await kv.put("values:null", null);
  await kv.put("values:true", true);
  await kv.put("values:stream", streamOf(new Uint8Array([97]), new Uint8Array([98, 99])));
  const { keys } = await kv.list({ prefix: "values:" });
  const found = {};
  for (const { name } of keys) found[name] = [...new Uint8Array(await kv.get(name, "arrayBuffer"))];
  return found;
}

async function types() {
  await kv.put("types", '{"a": [1]}');
  return {
    text: await kv.get("types"),
    json: await kv.get("types", "json"),
    option: await kv.get("types", { type: "json", cacheTtl: 60 }),
    bytes: [...new Uint8Array(await kv.get("types", { type: "arrayBuffer" }))].length,
    stream: await textOf(await kv.get("types", "stream")),
    none: await kv.get("types:none"),
    bulk: await kv.get(["types", "types:none"], "json"),
  };
}

async function metadata() {
  await kv.put("metadata", "v", { metadata: { a: "ü" }, expirationTtl: 3600.7 });
  const { keys, list_complete } = await kv.list({ prefix: "metadata" });
  const { value, metadata, cacheStatus } = await kv.getWithMetadata("metadata", "stream");
  return {
    listed: keys.map(({ name, metadata, expiration }) => [name, metadata, typeof expiration]),
    list_complete,
    found: [await textOf(value), metadata, cacheStatus],
    bulk: await kv.getWithMetadata(["metadata", "metadata:none"]),
    none: await kv.getWithMetadata("metadata:none"),
  };
}

async function pages() {
  for (const name of ["a", "b", "c"]) await kv.put(`pages:${name}`, name);
  const first = await kv.list({ prefix: "pages:", limit: 2 });
  const second = await kv.list({ prefix: "pages:", limit: 2, cursor: first.cursor });
  return [first, second].map(({ keys, list_complete }) => [keys.map(({ name }) => name), list_complete]);
}

async function deleted() {
  await kv.put("deleted", "v");
  await kv.delete("deleted");
  return kv.get("deleted");
}

async function errors() {
  await kv.put("errors", "no json");
  const long = "k".repeat(513);
  return {
    empty: await thrownBy(() => kv.get("")),
    dot: await thrownBy(() => kv.put(".", "v")),
    dots: await thrownBy(() => kv.delete("..")),
    long: await thrownBy(() => kv.get(long)),
    key: await thrownBy(() => kv.get(17)),
    json: await thrownBy(async () => (await thrownBy(() => kv.get("errors", "json"))).name),
    type: await thrownBy(() => kv.get("errors", "blob")),
    object: await thrownBy(() => kv.put("errors", { a: 1 })),
    chunk: await thrownBy(() => kv.put("errors", streamOf("text"))),
    ttl: await thrownBy(() => kv.put("errors", "v", { expirationTtl: 5 })),
    text: await thrownBy(() => kv.put("errors", "v", { expirationTtl: "soon" })),
    metadata: await thrownBy(() => kv.put("errors", "v", { metadata: "m".repeat(1023) })),
    limit: await thrownBy(() => kv.list({ limit: 1001 })),
    bulk: await thrownBy(() => kv.get([])),
    options: await thrownBy(() => kv.list("prefix")),
    kept: await kv.get("errors"),
  };
}

async function together() {
  const start = log.mark();
  await Promise.all(["a", "b", "c"].map((name) => kv.put(`together:${name}`, name)));
  const values = await Promise.all(["a", "b", "c"].map((name) => kv.get(`together:${name}`)));
  return { values, roundTrips: roundTrips(log.kinds(start)) };
}

const uses = { values, types, metadata, pages, deleted, errors, together };
const report = {};
for (const [name, use] of Object.entries(uses)) report[name] = await use();
console.log(JSON.stringify(report));
socket.terminate();
