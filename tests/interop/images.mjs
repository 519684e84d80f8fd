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

const report = {
  info: await images.info(image),
  thumbnail: await thumbnail(),
  base64: await inBase64(),
  errors: await errors(),
  forms: [...new Set(log.entries.map(({ form }) => form))].sort(),
};
console.log(JSON.stringify(report));
socket.terminate();
