// The queue binding used by npm capnweb on Node: node queue.mjs URL [--cbor]
// Prints one line of JSON with what came of each use, and ends.
import { CBOR_PROTOCOL, connect } from "./wire.mjs";

const protocols = process.argv.includes("--cbor") ? [CBOR_PROTOCOL] : [];
const { remote: queue, socket } = await connect(process.argv[2], { protocols });

async function thrownBy(promise) {
  try {
    return { value: await promise };
  } catch ({ name, message, code }) {
    return { name, message, code };
  }
}

const sent = await queue.send({ a: [1, "ü"] });
await queue.sendBatch([
  { body: "text", contentType: "text" },
  { body: new Uint8Array([0, 255]), contentType: "bytes" },
  { body: "late", delaySeconds: 3600 },
]);
const { messages } = await queue.pull({ batchSize: 10, visibilityTimeoutMs: 60_000 });
const [first, ...others] = messages.map(({ leaseId }) => ({ leaseId }));
const ended = await queue.ack({ acks: [first, { leaseId: "none" }], retries: others });
const again = await queue.pull();

const report = {
  sent: sent.metadata.metrics.backlogCount,
  oldest: sent.metadata.metrics.oldestMessageTimestamp instanceof Date,
  bodies: messages.map(({ body }) => (body instanceof Uint8Array ? [...body] : body)),
  types: messages.map(({ contentType }) => contentType),
  dates: messages.every(({ timestamp }) => timestamp instanceof Date),
  ended,
  attempts: again.messages.map(({ attempts }) => attempts),
  backlog: (await queue.metrics()).backlogCount,
  errors: {
    undefined: await thrownBy(queue.send(undefined)),
    text: await thrownBy(queue.send(1, { contentType: "text" })),
    large: await thrownBy(queue.send("x".repeat(128_001), { contentType: "text" })),
    empty: await thrownBy(queue.sendBatch([])),
    function: await thrownBy(queue.send(() => 1)),
  },
};
console.log(JSON.stringify(report));
socket.terminate();
