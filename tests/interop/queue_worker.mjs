// A Worker that uses env.QUEUE, and consumes its own queue where Miniflare simulates it: POST /<scenario>, with arguments
// as JSON. It answers {result}, or {thrown: {name, message}}.
const received = [];

const circle = { name: "circle" };
circle.self = circle;
const shared = [1];
const sparse = [];
sparse[5] = "far";

// Bodies by name: what to send, and with which options.
const bodies = {
  text: ["grüße \u{1f600}", { contentType: "text" }],
  bytes: [new Uint8Array([0, 255, 7]), { contentType: "bytes" }],
  words: [new Uint16Array([1, 2]), { contentType: "bytes" }],
  json: [{ a: [1, 2.5, null, "ü"], b: { c: true } }, { contentType: "json" }],
  default: [{ implied: "json" }],
  null: [null, {}],
  capitals: ["x", { contentType: "TEXT" }],
  numbers: [[0, 1, -1, 2 ** 31 - 1, -(2 ** 31), 2 ** 32, 0.5, -0.25, 1e300, Infinity], { contentType: "v8" }],
  nan: [NaN, { contentType: "v8" }],
  strings: [["", "latin é", "wide \u0416\u{1f600}", "x".repeat(300)], { contentType: "v8" }],
  simple: [{ t: true, f: false, n: null, u: undefined }, { contentType: "v8" }],
  nested: [{ list: [{ deep: [[["x"]]] }], 7: "seven" }, { contentType: "v8" }],
  date: [new Date(1700000000123), { contentType: "v8" }],
  noDate: [new Date(NaN), { contentType: "v8" }],
  map: [new Map([["key", [1]], [2, "two"]]), { contentType: "v8" }],
  set: [new Set(["a", 1, null]), { contentType: "v8" }],
  bigints: [[0n, 5n, -5n, 2n ** 100n], { contentType: "v8" }],
  buffer: [new Uint8Array([1, 2, 3]).buffer, { contentType: "v8" }],
  view: [{ view: new Uint8Array([9, 8, 7, 6]).subarray(1, 3), after: "x" }, { contentType: "v8" }],
  floats: [new Float64Array([0.5, -2]), { contentType: "v8" }],
  boxed: [[new Number(1.5), new String("s"), new Boolean(false), Object(7n)], { contentType: "v8" }],
  holes: [[1, , 3], { contentType: "v8" }],
  sparse: [sparse, { contentType: "v8" }],
  circle: [circle, { contentType: "v8" }],
  shared: [{ one: shared, other: shared, date: new Date(5) }, { contentType: "v8" }],
  error: [new RangeError("too far"), { contentType: "v8" }],
  delayed: ["soon", { contentType: "text", delaySeconds: 1 }],
};

/** A value as JSON, the same in Python (test_workerd_queue.py). */
function shown(value, seen = []) {
  if (value === undefined) return { undefined: true };
  if (typeof value === "number" && !Number.isFinite(value)) return { number: String(value) };
  if (typeof value === "bigint") return { bigint: String(value) };
  if (typeof value !== "object" || value === null) return value;
  if (seen.includes(value)) return { seen: seen.indexOf(value) };
  if (value instanceof Number || value instanceof String || value instanceof Boolean || value instanceof BigInt)
    return shown(value.valueOf());
  if (value instanceof Date) return { date: Number.isNaN(value.getTime()) ? null : value.getTime() };
  if (value instanceof Error) return { error: [value.name, value.message] };
  if (value instanceof ArrayBuffer) return { bytes: [...new Uint8Array(value)] };
  if (value instanceof Uint8Array) return { bytes: [...value] };
  if (ArrayBuffer.isView(value)) return { array: [value.constructor.name, [...value]] };
  const inside = (item) => shown(item, [...seen, value]);
  if (value instanceof Map) return { map: [...value].map(([key, item]) => [inside(key), inside(item)]) };
  if (value instanceof Set) return { set: [...value].map(inside) };
  if (Array.isArray(value)) return Array.from(value, inside);
  return { object: Object.entries(value).map(([key, item]) => [key, inside(item)]) };
}

async function thrownBy(call) {
  try {
    await call();
    return null;
  } catch ({ name, message }) {
    return { name, message };
  }
}

const scenarios = {
  async send({ QUEUE }, { body }) {
    return typeof (await QUEUE.send(...bodies[body])).metadata.metrics.backlogCount;
  },
  async sendAs({ QUEUE }, { body, contentType }) {
    await QUEUE.send(body, { contentType });
  },
  async sendNothing({ QUEUE }) {
    await QUEUE.send(undefined);
  },
  async sendLater({ QUEUE }, { delaySeconds }) {
    await QUEUE.send("x", { contentType: "text", delaySeconds });
  },
  async sendLarge({ QUEUE }, { size }) {
    await QUEUE.send("x".repeat(size), { contentType: "text" });
  },
  async sendBatch({ QUEUE }, { names, options }) {
    const messages = names.map((name) => ({ body: bodies[name][0], ...bodies[name][1] }));
    return typeof (await QUEUE.sendBatch(messages, options)).metadata.metrics.backlogCount;
  },
  async sendBatchAs({ QUEUE }, { messages, options }) {
    await QUEUE.sendBatch(messages, options);
  },
  async sendManyLarge({ QUEUE }, { count, size }) {
    await QUEUE.sendBatch(Array.from({ length: count }, () => ({ body: "x".repeat(size), contentType: "text" })));
  },
  async sendBatchOfNothing({ QUEUE }) {
    await QUEUE.sendBatch([{ body: undefined }]);
  },
  async unserializable({ QUEUE }, { contentType }) {
    await QUEUE.send({ call() {} }, { contentType });
  },
  async circleInJson({ QUEUE }) {
    await QUEUE.send(circle, { contentType: "json" });
  },
  /** What calls with odd arguments throw; null where they throw nothing. */
  async oddSends({ QUEUE }) {
    const options = {
      null: null,
      text: "text",
      typeNull: { contentType: null },
      typeUndefined: { contentType: undefined },
      typeNumber: { contentType: 5 },
      delayNull: { delaySeconds: null },
      delayFraction: { delaySeconds: 1.9 },
      delayText: { delaySeconds: "2" },
      delayNaN: { delaySeconds: NaN },
      delayInfinite: { delaySeconds: Infinity },
      more: { something: "else" },
    };
    const thrown = {};
    for (const [name, given] of Object.entries(options)) thrown[`send ${name}`] = await thrownBy(() => QUEUE.send("x", given));
    const values = {
      bigint: [5n],
      function: [() => 1],
      symbol: [Symbol("s")],
      buffer: [new Uint8Array([1]).buffer, { contentType: "bytes" }],
      dataView: [new DataView(new Uint8Array([1, 2]).buffer), { contentType: "bytes" }],
      toJson: [{ toJSON: () => "own" }],
      surrogate: ["a\ud800", { contentType: "text" }],
      boxed: [new String("x"), { contentType: "text" }],
      regexp: [/x/u, { contentType: "v8" }],
      proxy: [new Proxy({}, {}), { contentType: "v8" }],
      headers: [new Headers({ a: "b" }), { contentType: "v8" }],
      nothing: [],
    };
    for (const [name, given] of Object.entries(values)) thrown[`body ${name}`] = await thrownBy(() => QUEUE.send(...given));
    const batches = {
      set: new Set([{ body: 1 }]),
      generator: (function* () {
        yield { body: 1 };
      })(),
      null: null,
      objects: { body: 1 },
      bare: ["x"],
      noBody: [{}],
      optionsInside: [{ body: 1, options: { contentType: "xml" } }],
      delayNull: [{ body: 1, delaySeconds: null }],
      typeNull: [{ body: 1, contentType: null }],
    };
    for (const [name, given] of Object.entries(batches)) thrown[`batch ${name}`] = await thrownBy(() => QUEUE.sendBatch(given));
    thrown["batch options null"] = await thrownBy(() => QUEUE.sendBatch([{ body: 1 }], null));
    return thrown;
  },
  async counts({ QUEUE }) {
    const { backlogCount, backlogBytes, oldestMessageTimestamp } = await QUEUE.metrics();
    return { backlogCount, backlogBytes, oldest: oldestMessageTimestamp?.getTime() ?? null };
  },
  /** What queue() got, once it is that many; the list is empty then. */
  async received(_env, { count }) {
    while (received.length < count) await scheduler.wait(5);
    return received.splice(0);
  },
};

export default {
  async fetch(request, env) {
    const scenario = new URL(request.url).pathname.slice(1);
    try {
      return Response.json({ result: (await scenarios[scenario](env, await request.json())) ?? null });
    } catch ({ name, message }) {
      return Response.json({ thrown: { name, message } });
    }
  },
  async queue({ messages }) {
    for (const { body, attempts } of messages) received.push({ body: shown(body), attempts });
  },
};
