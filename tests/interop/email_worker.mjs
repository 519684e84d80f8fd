// A Worker that sends mail: POST /<scenario>, with arguments as JSON, of which "binding" names one of its bindings.
// It answers {result}, or {thrown: {name, message}}.
import { EmailMessage } from "cloudflare:email";

const encoder = new TextEncoder();

/** A stream of a text, in two pieces. */
function stream(text) {
  const bytes = encoder.encode(text);
  return new ReadableStream({
    start(controller) {
      controller.enqueue(bytes.subarray(0, 5));
      controller.enqueue(bytes.subarray(5));
      controller.close();
    },
  });
}

/** What a result looks like: ids are made up. */
function shape({ messageId }) {
  return messageId.replace(/^<[A-Za-z0-9]{36}@/, "<...@");
}

const scenarios = {
  async sendRaw(EMAIL, { from, to, raw, streamed }) {
    return shape(await EMAIL.send(new EmailMessage(from, to, streamed ? stream(raw) : raw)));
  },
  async sendParts(EMAIL, { parts }) {
    return shape(await EMAIL.send(parts));
  },
  async sendBytes(EMAIL, { parts, bytes, buffer }) {
    const view = new Uint8Array(bytes);
    const content = buffer ? view.buffer : view;
    const attachment = { disposition: "attachment", filename: "a.bin", type: "application/octet-stream", content };
    return shape(await EMAIL.send({ ...parts, attachments: [attachment] }));
  },
};

export default {
  async fetch(request, env) {
    const scenario = new URL(request.url).pathname.slice(1);
    try {
      const { binding = "EMAIL", ...given } = await request.json();
      return Response.json({ result: await scenarios[scenario](env[binding], given) });
    } catch ({ name, message }) {
      return Response.json({ thrown: { name, message } });
    }
  },
};
