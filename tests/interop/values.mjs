// The values that both languages must agree on, by name: api.py holds the same table in Python.
// A value is made anew at each call, so that no test can see what another did to it.
import { isDeepStrictEqual } from "node:util";

const BUFFER = () => new Uint8Array([0, 1, 2, 127, 128, 254, 255, 0, 0, 0, 0, 0, 0, 0, 240, 63]).buffer;

export const VALUES = {
  null: () => null,
  true: () => true,
  false: () => false,
  zero: () => 0,
  integer: () => -42,
  largest_safe: () => Number.MAX_SAFE_INTEGER,
  smallest_safe: () => Number.MIN_SAFE_INTEGER,
  fraction: () => 1.5,
  unsafe_number: () => 2 ** 53,
  large_number: () => 1e17,
  huge: () => 1.7976931348623157e308,
  tiny: () => 5e-324,
  infinity: () => Infinity,
  minus_infinity: () => -Infinity,
  nan: () => NaN,
  undefined: () => undefined,
  bigint: () => 2n ** 70n + 1n,
  negative_bigint: () => -(2n ** 64n),
  bigint_just_beyond: () => 2n ** 53n,
  empty_string: () => "",
  string: () => "héllo \u{1f600} \u0000 \" \\ \n",
  lone_high_surrogate: () => "a\ud83db",
  lone_low_surrogate: () => "\udfff",
  reversed_surrogates: () => "\ude00\ud83d",
  empty_list: () => [],
  list: () => [1, "two", [3, [4, []]], null],
  looks_special: () => ["bytes", "AAAA"],
  list_of_undefined: () => [undefined, [undefined]],
  empty_object: () => ({}),
  object: () => ({ a: 1, "a b": [{ c: null }], "": { "é": true }, undefined: undefined }),
  surrogate_beside_number: () => ["\ud800", Number.MAX_SAFE_INTEGER],
  surrogate_beside_bytes: () => ["\ud800", new Uint8Array([1, 2, 3])],
  surrogate_key: () => ({ "\ud800": 1 }),
  epoch: () => new Date(0),
  date: () => new Date(1700000000123),
  early_date: () => new Date(-62135596800000),
  late_date: () => new Date(253402300799999),
  invalid_date: () => new Date(NaN),
  bytes: () => Uint8Array.from({ length: 256 }, (_, index) => index),
  empty_bytes: () => new Uint8Array(0),
  ArrayBuffer: () => BUFFER(),
  DataView: () => new DataView(BUFFER()),
  Int8Array: () => new Int8Array(BUFFER()),
  Uint8ClampedArray: () => new Uint8ClampedArray(BUFFER()),
  Int16Array: () => new Int16Array(BUFFER()),
  Uint16Array: () => new Uint16Array(BUFFER()),
  Int32Array: () => new Int32Array(BUFFER()),
  Uint32Array: () => new Uint32Array(BUFFER()),
  BigInt64Array: () => new BigInt64Array(BUFFER()),
  BigUint64Array: () => new BigUint64Array(BUFFER()),
  Float32Array: () => new Float32Array(BUFFER()),
  Float64Array: () => new Float64Array(BUFFER()),
  empty_typed_array: () => new Float64Array(0),
  mixed: () => ({ when: new Date(1), raw: [new Uint8Array([1, 2]), 3n ** 40n], nothing: undefined }),
};

const URL_TEXT = "https://a.example/path?q=1#top";

/** A body that arrives in pieces. */
function inPieces(...pieces) {
  const encoder = new TextEncoder();
  const pull = (controller) => {
    if (pieces.length > 0) controller.enqueue(encoder.encode(pieces.shift()));
    else controller.close();
  };
  return new ReadableStream({ pull });
}

// The web's values, likewise: they can be read once, so they are compared by what `described` says of them.
export const WEB_VALUES = {
  url: () => new URL(URL_TEXT),
  headers: () => new Headers([["X-B", "1"], ["Set-Cookie", "b=2"], ["x-a", "ä"], ["x-b", "2"], ["set-cookie", "a=1"]]),
  plain_request: () => new Request(URL_TEXT),
  request: () => new Request(URL_TEXT, { method: "POST", headers: { "x-a": "b" }, body: "the béginning" }),
  streamed_request: () => new Request(URL_TEXT, { method: "PUT", body: inPieces("one ", "two"), duplex: "half" }),
  plain_response: () => new Response(null, { status: 204, statusText: "Nothing" }),
  response: () => new Response("not hére", { status: 404, headers: { "x-a": "b" } }),
  empty_response: () => new Response(""),
  streamed_response: () => new Response(inPieces("one ", "two ", "three"), { status: 201 }),
  large_response: () => new Response("0123456789".repeat(100_000)),
  blob: () => new Blob(["<p>hé</p>"], { type: "text/html;charset=utf-8" }),
  plain_blob: () => new Blob([new Uint8Array([1, 2, 3])]),
  empty_blob: () => new Blob([], { type: "image/png" }),
  large_blob: () => new Blob(["0123456789".repeat(100_000)], { type: "text/plain" }),
};

/** What a web value is, to the end of its body. */
export async function described(value) {
  if (value instanceof URL) return ["url", value.href];
  if (value instanceof Headers) return ["headers", [...value]];
  if (value instanceof Blob) return ["blob", value.type, value.size, await value.text()];
  const kind = value instanceof Request ? ["request", value.method, value.url] : ["response", value.status, value.statusText];
  return [...kind, [...value.headers], value.body === null, await value.text()];
}

/** True when both are the same value of the same kind; a Buffer counts as the Uint8Array that it is, and any two
 *  invalid dates are the same. */
export function same(left, right) {
  return isDeepStrictEqual(plain(left), plain(right));
}

function plain(value) {
  if (Buffer.isBuffer(value)) return new Uint8Array(value);
  if (value instanceof Date && Number.isNaN(value.getTime())) return { invalidDate: true };
  if (Array.isArray(value)) return value.map(plain);
  if (value !== null && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
  }
  return value;
}
