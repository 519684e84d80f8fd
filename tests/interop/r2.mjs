// A bucket used by npm capnweb on Node: node r2.mjs URL [--cbor]
// It prints one line of JSON with what came of each use, and ends.
import { CBOR_PROTOCOL, connect } from "./wire.mjs";

const protocols = process.argv.includes("--cbor") ? [CBOR_PROTOCOL] : [];
const { remote: bucket, socket } = await connect(process.argv[2], { protocols });

const MIB = 1024 * 1024;

function streamOf(size, byte) {
  let left = size;
  return new ReadableStream({
    pull(controller) {
      const length = Math.min(left, 65_536);
      if (length) controller.enqueue(new Uint8Array(length).fill(byte));
      left -= length;
      if (!left) controller.close();
    },
  });
}

async function thrownBy(promise) {
  try {
    return { value: await promise };
  } catch ({ name, message, code }) {
    return { name, message, code };
  }
}

const textOf = async (object) => new Response(object.body).text();
const hex = (bytes) => Buffer.from(bytes).toString("hex");

async function roundTrip() {
  const httpMetadata = { contentType: "text/plain", cacheExpiry: new Date("2030-01-02T03:04:05.006Z") };
  const put = await bucket.put("ä", "content", { httpMetadata, customMetadata: { a: "1" } });
  const object = await bucket.get("ä");
  const { key, size, etag, httpEtag, customMetadata, range, storageClass } = object;
  return {
    key, size, etag, httpEtag, customMetadata, range, storageClass, md5: hex(object.checksums.md5), sameVersion: put.version === object.version,
    fresh: Math.abs(Date.now() - object.uploaded.getTime()) < 60_000,
    contentType: object.httpMetadata.contentType, expiry: object.httpMetadata.cacheExpiry.toISOString(),
    text: await textOf(object), head: (await bucket.head("ä")).size, none: [await bucket.head("missing"), await bucket.get("missing")],
  };
}

async function values() {
  const given = { text: "ü", bytes: new Uint8Array([0, 255]), blob: new Blob(["blob"]), none: null, buffer: new ArrayBuffer(2), wide: new Uint16Array([258]) };
  const results = {};
  for (const [name, value] of Object.entries(given)) {
    await bucket.put(name, value);
    results[name] = hex(await new Response((await bucket.get(name)).body).arrayBuffer());
  }
  return results;
}

async function streams() {
  const size = 2 * MIB + 1;
  await bucket.put("large", streamOf(size, 120));
  const object = await bucket.get("large", { range: new Headers({ Range: "bytes=1-" }) });
  let received = 0;
  let same = true;
  for await (const chunk of object.body) {
    received += chunk.length;
    same &&= chunk.every((byte) => byte === 120);
  }
  return { size: object.size, received: received - size, same };
}

async function conditions() {
  const { etag } = await bucket.put("c", "one");
  const unmet = await bucket.get("c", { onlyIf: { etagDoesNotMatch: etag } });
  return {
    unmet: [unmet.etag === etag, "body" in unmet], put: await bucket.put("c", "two", { onlyIf: new Headers({ "If-None-Match": "*" }) }),
    met: await textOf(await bucket.get("c", { onlyIf: { etagMatches: etag, uploadedAfter: new Date(0) } })),
  };
}

async function listing() {
  for (const key of ["l/1", "l/2", "l/3/x"]) await bucket.put(key, key);
  const first = await bucket.list({ prefix: "l/", delimiter: "/", limit: 2 });
  const rest = await bucket.list({ prefix: "l/", delimiter: "/", cursor: first.cursor });
  await bucket.delete(["l/1", "l/2"]);
  await bucket.delete("l/3/x");
  return {
    first: [first.objects.map(({ key }) => key), first.truncated], rest: [rest.objects.length, rest.delimitedPrefixes, rest.truncated],
    left: (await bucket.list({ prefix: "l/" })).objects.length,
  };
}

async function multipart() {
  const upload = await bucket.createMultipartUpload("m");
  const id = await upload.uploadId;
  const first = await upload.uploadPart(1, streamOf(5 * MIB, 97));
  const last = await bucket.resumeMultipartUpload("m", id).uploadPart(2, "end");
  const object = await upload.complete([first, last]);
  const key = await upload.key;
  upload[Symbol.dispose]();
  return { size: object.size, etag: object.etag, key, numbers: [first.partNumber, last.partNumber] };
}

async function encryption() {
  const key = new Uint8Array(32).map((_, index) => index);
  const put = await bucket.put("e", "content", { ssecKey: key });
  return {
    md5: put.ssecKeyMd5, same: (await bucket.put("e", "content", { ssecKey: key.buffer })).ssecKeyMd5 === put.ssecKeyMd5, text: await textOf(await bucket.get("e", { ssecKey: hex(key) })), without: await thrownBy(bucket.get("e")),
    short: await thrownBy(bucket.get("e", { ssecKey: "ab" })),
  };
}

async function errors() {
  return {
    key: await thrownBy(bucket.get("k".repeat(1025))),
    digest: await thrownBy(bucket.put("a", "x", { sha1: new Uint8Array(20) })),
    digestBuffer: await thrownBy(bucket.put("a", "x", { sha1: new ArrayBuffer(20) })),
    short: await thrownBy(bucket.put("a", "x", { md5: "ab" })),
    range: await thrownBy(bucket.get("ä", { range: { offset: -1 } })),
    limit: await thrownBy(bucket.list({ limit: 0 })),
    value: await thrownBy(bucket.put("a", 1)),
    upload: await thrownBy(bucket.resumeMultipartUpload("a", "none").uploadPart(1, "x")),
    stream: await thrownBy(bucket.put("a", new ReadableStream({ start: (controller) => { controller.enqueue("text"); controller.close(); } }))),
  };
}

const report = {};
for (const use of [roundTrip, values, streams, conditions, listing, multipart, encryption, errors]) report[use.name] = await use();
console.log(JSON.stringify(report));
socket.terminate();
