// The images binding used by npm capnweb on Node: node images.mjs URL [--cbor]
// Reads {image, overlay} in base64 from standard input, prints one line of JSON with what came of each use, and ends.
import { text } from "node:stream/consumers";
import { CBOR_PROTOCOL, connect, roundTrips } from "./wire.mjs";

const protocols = process.argv.includes("--cbor") ? [CBOR_PROTOCOL] : [];
const { remote: images, log, socket } = await connect(process.argv[2], { protocols });
const given = JSON.parse(await text(process.stdin));
const image = Uint8Array.from(Buffer.from(given.image, "base64"));
const overlay = Uint8Array.from(Buffer.from(given.overlay, "base64"));

async function thumbnail() {
  const start = log.mark();
  const badge = images.input(overlay).transform({ width: 4, height: 4 });
  const result = images
    .input(image)
    .transform({ width: 20 })
    .draw(badge, { right: 0, bottom: 0 })
    .output({ format: "image/webp", quality: 90 });
  const [type, bytes] = await Promise.all([result.contentType(), result.image()]);
  return { type, image: Buffer.from(bytes).toString("base64"), roundTrips: roundTrips(log.kinds(start)) };
}

async function inBase64() {
  const input = images.input(given.image, { encoding: "base64" });
  const result = input.output({ format: "image/png" });
  return new TextDecoder().decode(await result.image({ encoding: "base64" }));
}

async function thrownBy(promise) {
  try {
    return { value: await promise };
  } catch ({ name, message, code }) {
    return { name, message, code };
  }
}

async function errors() {
  const used = images.input(image);
  const output = used.output({ format: "image/png" });
  await output.contentType();
  return {
    info: await thrownBy(images.info(new Uint8Array([1, 2, 3]))),
    input: await thrownBy(images.input(new Uint8Array([1])).output({ format: "image/png" }).image()),
    option: await thrownBy(images.input(image).transform({ width: -1 }).output({ format: "image/png" }).image()),
    consumed: await thrownBy(used.output({ format: "image/png" })),
  };
}

/** A stream of a picture, in pieces of so many bytes. */
function streamOf(bytes, size) {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.subarray(at, (at += size)));
    },
  });
}

async function wholeOf(stream) {
  return Buffer.from(await new Response(stream).arrayBuffer());
}

async function streams() {
  const start = log.mark();
  const badge = images.input(streamOf(overlay, 50)).transform({ width: 4, height: 4 });
  const picture = images.input(streamOf(image, 100)).transform({ width: 20 }).draw(badge, { right: 0, bottom: 0 });
  const made = await picture.output({ format: "image/png" }).image();
  const info = await images.info(streamOf(new TextEncoder().encode(given.image), 7), { encoding: "base64" });
  return { image: Buffer.from(made).toString("base64"), trips: roundTrips(log.kinds(start)), info };
}

async function hosted() {
  const forms = {
    bytes: image,
    buffer: image.buffer.slice(image.byteOffset, image.byteOffset + image.byteLength),
    stream: streamOf(image, 100),
  };
  const kept = {};
  for (const [name, form] of Object.entries(forms)) {
    const id = `node/${name}`;
    const uploaded = await images.hosted.upload(form, { id, metadata: { name }, creator: "node" });
    const details = await images.hosted.image(id).details();
    const bytes = await wholeOf(await images.hosted.image(id).bytes());
    kept[name] = { details, uploaded, same: bytes.equals(Buffer.from(image)) };
  }
  const page = await images.hosted.list({ limit: 2, creator: "node" });
  const rest = await images.hosted.list({ limit: 2, creator: "node", cursor: page.cursor });
  const updated = await images.hosted.image("node/bytes").update({ creator: "me" });
  const pages = [page, rest].map(({ images, listComplete }) => [images.map(({ id }) => id), listComplete]);
  const deleted = [];
  for (const name of Object.keys(forms)) deleted.push(await images.hosted.image(`node/${name}`).delete());
  const gone = images.hosted.image("node/bytes");
  const missing = [await gone.details(), await gone.bytes(), await gone.delete()];
  return { kept, pages, creator: updated.creator, deleted, missing, error: await thrownBy(gone.update({})) };
}

/** An image that is announced here, and uploaded and seen by anybody who has the URLs. */
async function uploadedDirectly() {
  const { id, uploadURL } = await images.hosted.createDirectUpload({ metadata: { by: "node" }, expiresIn: 600 });
  const form = new FormData();
  form.append("file", new File([image], "holiday.png"));
  const answer = await fetch(uploadURL, { method: "POST", body: form });
  const shown = await fetch(await images.hosted.image(id).signedUrl({ variant: "public", expiresIn: 60 }));
  const same = Buffer.from(await shown.arrayBuffer()).equals(Buffer.from(image));
  const { filename, draft, meta } = await images.hosted.image(id).details();
  await images.hosted.image(id).delete();
  return { status: answer.status, same, filename, draft, meta };
}

const report = {
  info: await images.info(image),
  thumbnail: await thumbnail(),
  base64: await inBase64(),
  errors: await errors(),
  streams: await streams(),
  hosted: await hosted(),
  direct: await uploadedDirectly(),
  forms: [...new Set(log.entries.map(({ form }) => form))].sort(),
};
console.log(JSON.stringify(report));
socket.terminate();
