// The send_email binding used by npm capnweb on Node: node email.mjs URL [--cbor]
// Prints one line of JSON with what came of each use, and ends.
import { CBOR_PROTOCOL, connect } from "./wire.mjs";

const protocols = process.argv.includes("--cbor") ? [CBOR_PROTOCOL] : [];
const { remote: mail, socket } = await connect(process.argv[2], { protocols });

const from = "ada@example.com";
const to = "bob@example.org";
const raw = `From: ${from}\r\nMessage-ID: <1@example.com>\r\n\r\nHello\r\n`;

function stream(text) {
  return new Blob([text]).stream();
}

async function thrownBy(promise) {
  try {
    return { value: await promise };
  } catch ({ name, message, code }) {
    return { name, message, code };
  }
}

const content = new Uint8Array([0, 255]);
const attachment = { filename: "a.bin", type: "application/octet-stream", disposition: "attachment", content };
const report = {
  ids: [
    (await mail.send({ from, to, "EmailMessage::raw": raw })).messageId,
    (await mail.send({ from, to, "EmailMessage::raw": stream(raw) })).messageId,
    (await mail.send({ from, to: [to], subject: "Hi", text: "Hello", attachments: [attachment] })).messageId,
  ],
  errors: {
    recipient: await thrownBy(mail.send({ from, to: "eve@example.net", subject: "Hi" })),
    subject: await thrownBy(mail.send({ from, to })),
    nothing: await thrownBy(mail.send()),
    text: await thrownBy(mail.send("Hello")),
  },
};
console.log(JSON.stringify(report));
socket.terminate();
