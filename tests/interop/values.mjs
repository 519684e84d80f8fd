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
