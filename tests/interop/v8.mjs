// Values in V8's format, as Python wrote them, read by a real V8: node v8.mjs
// Reads {name: base64} from standard input, and prints {name: problem or null}, by what they should be.
import assert from "node:assert";
import { text } from "node:stream/consumers";
import { deserialize } from "node:v8";

const circle = { name: "circle" };
circle.self = circle;
const shared = [1];
const wide = "\u0416\u{1f600}";

const expected = {
  simple: [null, undefined, true, false],
  integers: [0, 1, -1, 2 ** 31 - 1, -(2 ** 31), 2 ** 31, 2 ** 53 - 1, -(2 ** 53 - 1)],
  floats: [0.5, -0.25, 1e300, Infinity, NaN],
  bigints: [0n, 5n, -5n, 2n ** 53n, -(2n ** 200n)],
  strings: ["", "latin é", wide, "x".repeat(300), "\ud800"],
  aligned: ["odd", wide, "even", wide, { [wide]: wide }],
  object: { a: { b: [{}, []] }, 7: "seven" },
  map: new Map([[1, "one"], [null, 2], ["k", []]]),
  set: new Set(["a", 1, null]),
  dates: [new Date(1700000000123), new Date(-1)],
  bytes: [new Uint8Array([]), new Uint8Array([0, 255])],
  arrays: [new Float64Array([0.5]), new Int8Array([-1]), new Uint8Array([7]).buffer],
  circle,
  shared: { one: shared, data: new Uint8Array([1]), other: shared },
};

const given = JSON.parse(await text(process.stdin));
const report = {};
for (const [name, encoded] of Object.entries(given)) {
  try {
    const value = deserialize(Buffer.from(encoded, "base64"));
    if (name === "error") assert.deepStrictEqual([value.constructor, value.message], [TypeError, wide]);
    else assert.deepStrictEqual(value, expected[name]);
    if (name === "shared") assert.strictEqual(value.one, value.other);
    if (name === "dates") assert(value.every((date) => !Number.isNaN(date.getTime())));
    report[name] = null;
  } catch ({ message }) {
    report[name] = message;
  }
}
console.log(JSON.stringify(report));
