// The Worker of test_workerd_kv.py: all that a Worker can do with a KV namespace, over whatever stands behind env.KV. A request
// to /NAME runs what SCENARIOS has under NAME, on env.KV or the binding that it names, and answers as worker.mjs does. Keys of
// each scenario begin with its name.

function errorParts({ name, message, constructor }) {
  return { class: constructor.name, name, message };
}

/** What a call threw, at once or later, or what it came to. */
async function attempt(call) {
  try {
    return { value: shown(await call()) };
  } catch (error) {
    return { thrown: errorParts(error) };
  }
}

/** A value as JSON can say it. */
function shown(value) {
  if (value === undefined) return "undefined";
  if (value instanceof ArrayBuffer) return `ArrayBuffer ${[...new Uint8Array(value)]}`;
  if (value instanceof Map) return { map: [...value].map(([key, member]) => [key, shown(member)]) };
  if (value instanceof ReadableStream) return "ReadableStream";
  return value;
}

function streamOf(...chunks) {
  const { readable, writable } = new TransformStream();
  const writer = writable.getWriter();
  (async () => {
    for (const chunk of chunks) await writer.write(typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk);
    await writer.close();
  })();
  return readable;
}

function patterned(size) {
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; at += 1021) bytes[at] = at / 1021;
  return bytes;
}

function same(one, other) {
  const [left, right] = [new Uint8Array(one), new Uint8Array(other)];
  return left.length === right.length && left.every((byte, at) => byte === right[at]);
}

async function listNames(KV, options) {
  const { keys, list_complete } = await KV.list(options);
  return { names: keys.map(({ name }) => name), list_complete };
}

const KEYS = ["plain", "with space", "a/b", "a%2Fb", "100%", "q?x=1&y", "#hash", "ü€😀", "a+b", "...", "%2e%2e", "\u0000\n", "\"'<>"];

const SCENARIOS = {
  async types({ KV }) {
    await KV.put("types:json", '{"a": [1, null, "ü"]}');
    const result = {};
    for (const type of ["text", "json", "arrayBuffer"]) {
      result[type] = shown(await KV.get("types:json", type));
      result[`${type} as option`] = shown(await KV.get("types:json", { type }));
    }
    const stream = await KV.get("types:json", "stream");
    result.stream = await new Response(stream).text();
    result.none = shown(await KV.get("types:json"));
    result.undefinedType = shown(await KV.get("types:json", { type: undefined }));
    return result;
  },

  async missing({ KV }) {
    return [
      shown(await KV.get("missing")),
      shown(await KV.get("missing", "stream")),
      await KV.getWithMetadata("missing"),
      await attempt(() => KV.delete("missing")),
    ];
  },

  async values({ KV }) {
    const bytes = new Uint8Array([0, 1, 254, 255]);
    await KV.put("values:empty", "");
    await KV.put("values:text", "ü€😀");
    await KV.put("values:buffer", bytes.buffer);
    await KV.put("values:view", new Uint16Array([1, 256]));
    await KV.put("values:stream", streamOf("one ", "two ", "three"));
    await KV.put("values:number", 17);
    await KV.put("values:invalid", new Uint8Array([0x61, 0xff, 0x62]));
    await KV.put("values:bom", "\ufeffmarked");
    const result = {};
    for (const { name } of (await KV.list({ prefix: "values:" })).keys) {
      result[name] = [await KV.get(name), shown(await KV.get(name, "arrayBuffer"))];
    }
    return result;
  },

  async overwritten({ KV }) {
    await KV.put("overwritten", "first", { metadata: { n: 1 } });
    await KV.put("overwritten", "second");
    return KV.getWithMetadata("overwritten");
  },

  async large({ KV }, { size }) {
    const bytes = patterned(size);
    await KV.put("large", bytes);
    const whole = same(await KV.get("large", "arrayBuffer"), bytes);
    await KV.put("large", streamOf(bytes.subarray(0, size / 2), bytes.subarray(size / 2)));
    const streamed = same(await new Response(await KV.get("large", "stream")).arrayBuffer(), bytes);
    await KV.delete("large");
    return { whole, streamed, gone: await KV.get("large") };
  },

  async tooLarge({ KV }) {
    const limit = 25 * 1024 * 1024;
    return {
      known: await attempt(() => KV.put("tooLarge", new Uint8Array(limit + 1))),
      streamed: await attempt(() => KV.put("tooLarge", streamOf(new Uint8Array(limit), new Uint8Array(10)))),
      kept: await KV.get("tooLarge"),
    };
  },

  async keys({ KV }) {
    const result = {};
    for (const key of KEYS) {
      await KV.put(`keys:${key}`, key);
      result[key] = (await KV.get(`keys:${key}`)) === key;
    }
    result.list = await listNames(KV, { prefix: "keys:" });
    for (const key of KEYS) await KV.delete(`keys:${key}`);
    result.left = await listNames(KV, { prefix: "keys:" });
    return result;
  },

  async bareKeys({ KV }) {
    const result = {};
    for (const key of KEYS) {
      await KV.put(key, key);
      result[key] = (await KV.get(key)) === key;
      await KV.delete(key);
    }
    return result;
  },

  async badKeys({ KV }) {
    const result = {};
    for (const key of ["", ".", "..", "k".repeat(512), "k".repeat(513), "ü".repeat(257)]) {
      const name = key.length > 2 ? `${key[0]} ${key.length}` : key;
      result[`get ${name}`] = await attempt(() => KV.get(key));
      result[`put ${name}`] = await attempt(() => KV.put(key, "v"));
      result[`delete ${name}`] = await attempt(() => KV.delete(key));
      result[`bulk ${name}`] = await attempt(() => KV.get([key]));
    }
    return result;
  },

  async badValues({ KV }) {
    return {
      object: await attempt(() => KV.put("badValues", { a: 1 })),
      null: await attempt(() => KV.put("badValues", null)),
      missing: await attempt(() => KV.put("badValues")),
      json: await attempt(async () => {
        await KV.put("badValues", "no json");
        return KV.get("badValues", "json");
      }),
      type: await attempt(() => KV.get("badValues", "blob")),
      cacheTtl: await attempt(() => KV.get("badValues", { cacheTtl: 5 })),
      goodCacheTtl: await attempt(() => KV.get("badValues", { cacheTtl: 30 })),
      bulkCacheTtl: await attempt(() => KV.get(["badValues"], { cacheTtl: 5 })),
    };
  },

  async metadata({ KV }) {
    const kinds = { object: { a: [1, "ü€😀"] }, text: "text", number: 0, array: [1], truth: false, null: null, undefined };
    const result = {};
    for (const [kind, metadata] of Object.entries(kinds)) {
      await KV.put(`metadata:${kind}`, "v", { metadata });
      result[kind] = await KV.getWithMetadata(`metadata:${kind}`);
    }
    result.list = await KV.list({ prefix: "metadata:" });
    result.json = await KV.getWithMetadata("metadata:text", "arrayBuffer").then(({ value }) => shown(value));
    const stream = await KV.getWithMetadata("metadata:object", { type: "stream" });
    result.stream = [await new Response(stream.value).text(), stream.metadata];
    return result;
  },

  async metadataLimit({ KV }) {
    // With its quotation marks, and with two bytes for each letter.
    return {
      fits: await attempt(() => KV.put("metadataLimit", "v", { metadata: "m".repeat(1022) })),
      ascii: await attempt(() => KV.put("metadataLimit", "v", { metadata: "m".repeat(1023) })),
      fitting: await attempt(() => KV.put("metadataLimit", "v", { metadata: "ü".repeat(511) })),
      letters: await attempt(() => KV.put("metadataLimit", "v", { metadata: "ü".repeat(512) })),
    };
  },

  async expirations({ KV }) {
    const now = Math.floor(Date.now() / 1000);
    await KV.put("expirations:at", "v", { expiration: now + 5000 });
    await KV.put("expirations:ttl", "v", { expirationTtl: 3600 });
    await KV.put("expirations:both", "v", { expiration: now + 5000, expirationTtl: 3600, metadata: 1 });
    await KV.put("expirations:none", "v");
    const { keys } = await KV.list({ prefix: "expirations:" });
    const result = Object.fromEntries(keys.map(({ name, expiration }) => [name, expiration && Math.round((expiration - now) / 100)]));
    result.value = await KV.get("expirations:ttl");
    await KV.put("expirations:ttl", "v");
    result.removed = (await KV.list({ prefix: "expirations:ttl" })).keys;
    return result;
  },

  async badExpirations({ KV }) {
    const put = (options) => attempt(() => KV.put("badExpirations", "v", options));
    const past = await put({ expiration: 1000 });
    const zero = await put({ expiration: 0 });
    const soon = await put({ expiration: Math.floor(Date.now() / 1000) + 30 });
    // The second is in the text, and is not the same each time.
    soon.thrown.message = soon.thrown.message.replace(/[0-9]{10}/, "SECOND");
    return {
      past,
      zero,
      soon,
      short: await put({ expirationTtl: 59 }),
      none: await put({ expirationTtl: 0 }),
      negative: await put({ expirationTtl: -60 }),
      text: await put({ expirationTtl: "soon" }),
      numeral: await put({ expirationTtl: "60" }),
      fraction: await put({ expirationTtl: 60.9 }),
      kept: await KV.get("badExpirations"),
    };
  },

  async list({ KV }) {
    for (const name of ["b", "a", "ab", "c", "B", "ü"]) await KV.put(`list:${name}`, name);
    await KV.put("list;", "behind");
    return {
      all: await KV.list({ prefix: "list:" }),
      some: await listNames(KV, { prefix: "list:a" }),
      none: await KV.list({ prefix: "list:nothing" }),
      null: await listNames(KV, { prefix: "list:a", cursor: null, limit: undefined }),
    };
  },

  async pages({ KV }) {
    const names = Array.from({ length: 7 }, (_, index) => `pages:${index}`);
    for (const name of names) await KV.put(name, name);
    const pages = [];
    let cursor;
    for (;;) {
      const page = await KV.list({ prefix: "pages:", limit: 3, cursor });
      pages.push([page.keys.map(({ name }) => name), page.list_complete, typeof page.cursor]);
      if (page.list_complete) break;
      cursor = page.cursor;
    }
    // An exact fit is complete.
    const exact = await KV.list({ prefix: "pages:", limit: 7 });
    return { pages, exact: [exact.keys.length, exact.list_complete, typeof exact.cursor] };
  },

  /** What comes and goes between two pages. */
  async moving({ KV }) {
    for (const { name } of (await KV.list({ prefix: "moving:" })).keys) await KV.delete(name);
    for (const name of ["a", "b", "c", "d"]) await KV.put(`moving:${name}`, name);
    const first = await KV.list({ prefix: "moving:", limit: 2 });
    await KV.delete("moving:a");
    await KV.delete("moving:b");
    await KV.delete("moving:c");
    await KV.put("moving:aa", "too late");
    await KV.put("moving:bb", "in time");
    const second = await KV.list({ prefix: "moving:", cursor: first.cursor });
    return [first, second].map(({ keys }) => keys.map(({ name }) => name));
  },

  async badLists({ KV }) {
    return {
      over: await attempt(() => KV.list({ limit: 1001 })),
      zero: await attempt(() => KV.list({ prefix: "badLists:", limit: 0 })),
      negative: await attempt(() => KV.list({ prefix: "badLists:", limit: -1 })),
      prefix: await attempt(() => KV.list({ prefix: "p".repeat(513) })),
    };
  },

  async badCursor({ KV }) {
    return attempt(() => KV.list({ prefix: "badCursor:", cursor: "@@@" }));
  },

  async bulk({ KV }) {
    await KV.put("bulk:text", "text");
    await KV.put("bulk:json", '{"a": 1}', { metadata: { m: 1 } });
    await KV.put("bulk:empty", "", { metadata: 1 });
    const keys = ["bulk:json", "bulk:none"];
    return {
      text: shown(await KV.get(["bulk:text", "bulk:json", "bulk:none", "bulk:empty"])),
      typed: shown(await KV.get(keys, "text")),
      json: shown(await KV.get(keys, "json")),
      option: shown(await KV.get(keys, { type: "json", cacheTtl: 60 })),
      metadata: shown(await KV.getWithMetadata(keys)),
      jsonMetadata: shown(await KV.getWithMetadata(keys, "json")),
      twice: shown(await KV.get(["bulk:text", "bulk:text"])),
    };
  },

  async emptyBulkValue({ KV }) {
    await KV.put("emptyBulkValue", "", { metadata: 1 });
    return shown(await KV.getWithMetadata(["emptyBulkValue"]));
  },

  async badBulks({ KV }) {
    await KV.put("badBulks", "no json");
    const names = (count) => Array.from({ length: count }, (_, index) => `badBulks:${index}`);
    return {
      none: await attempt(() => KV.get([])),
      hundred: await attempt(async () => (await KV.get(names(100))).size),
      more: await attempt(() => KV.get(names(101))),
      arrayBuffer: await attempt(() => KV.get(["badBulks"], "arrayBuffer")),
      stream: await attempt(() => KV.getWithMetadata(["badBulks"], { type: "stream" })),
      json: await attempt(() => KV.get(["badBulks"], "json")),
    };
  },

  async largeBulk({ KV }) {
    const value = "v".repeat(9 * 1024 * 1024);
    const keys = ["largeBulk:a", "largeBulk:b", "largeBulk:c"];
    for (const key of keys) await KV.put(key, value);
    const fits = await KV.get(keys.slice(1));
    return { fits: [...fits.values()].map(({ length }) => length), over: await attempt(() => KV.get(keys)) };
  },

  /** Arguments of types that nobody documents. */
  async oddReads({ KV }) {
    await KV.put("oddReads", "[1]");
    await KV.put("17", "seventeen");
    const result = {};
    for (const [name, key] of Object.entries({ number: 17, null: null, undefined, truth: true, object: {}, surrogate: "\ud800" }))
      result[`key ${name}`] = await attempt(() => KV.get(key));
    const kinds = { null: null, capitals: "TEXT", number: 5, typeNull: { type: null }, typeNumber: { type: 5 }, empty: {}, array: [] };
    for (const [name, options] of Object.entries(kinds)) {
      result[`options ${name}`] = await attempt(() => KV.get("oddReads", options));
      result[`bulk options ${name}`] = await attempt(() => KV.get(["oddReads"], options));
    }
    const times = { fraction: 60.5, text: "60", letters: "soon", nan: NaN, infinite: Infinity, null: null, negative: -60, none: 0, large: 2 ** 40 };
    for (const [name, cacheTtl] of Object.entries(times)) {
      result[`cacheTtl ${name}`] = await attempt(() => KV.get("oddReads", { cacheTtl }));
      result[`bulk cacheTtl ${name}`] = await attempt(() => KV.get(["oddReads"], { cacheTtl }));
    }
    for (const [name, keys] of Object.entries({ numbers: [17], mixed: ["oddReads", null], nested: [["oddReads"]], dots: ["."], empty: [""] }))
      result[`keys ${name}`] = await attempt(() => KV.get(keys));
    return result;
  },

  async oddWrites({ KV }) {
    const result = {};
    const values = {
      truth: true,
      bigint: 5n,
      undefined,
      array: [1],
      date: new Date(0),
      blob: new Blob(["b"]),
      dataView: new DataView(new Uint8Array([1, 2, 3]).buffer, 1),
      emptyView: new Uint8Array(0),
      emptyStream: streamOf(),
      pieces: streamOf("a", "", new Uint8Array([98])),
      response: new Response("r").body,
      surrogate: "a\ud800b",
      function: () => 1,
    };
    for (const [name, value] of Object.entries(values)) {
      const key = `oddWrites:${name}`;
      result[name] = [await attempt(() => KV.put(key, value)), await attempt(() => KV.get(key, "arrayBuffer"))];
    }
    const circle = {};
    circle.self = circle;
    const metadata = { date: new Date(0), nested: { undefined, function: () => 1, nan: NaN }, surrogate: "\ud800", bigint: 5n, circle, own: { toJSON: () => "own" } };
    for (const [name, value] of Object.entries(metadata)) {
      const key = `oddWrites:metadata:${name}`;
      result[`metadata ${name}`] = [await attempt(() => KV.put(key, "v", { metadata: value })), await attempt(() => KV.getWithMetadata(key))];
    }
    const times = { null: null, undefined, infinite: Infinity, nan: NaN, truth: true, large: 2 ** 40 };
    for (const [name, value] of Object.entries(times)) {
      result[`expirationTtl ${name}`] = await attempt(() => KV.put("oddWrites:ttl", "v", { expirationTtl: value }));
      result[`expiration ${name}`] = await attempt(() => KV.put("oddWrites:at", "v", { expiration: value }));
    }
    result.options = [await attempt(() => KV.put("oddWrites:options", "v", null)), await attempt(() => KV.put("oddWrites:options", "v", "text"))];
    return result;
  },

  async oddLists({ KV }) {
    for (const name of ["1", "2", "3"]) await KV.put(`oddLists:${name}`, name);
    const result = {};
    const kinds = {
      limitText: { limit: "2" },
      limitFraction: { limit: 2.7 },
      limitNull: { limit: null },
      limitLetters: { limit: "two" },
      limitInfinite: { limit: Infinity },
      cursorEmpty: { cursor: "" },
      cursorNull: { cursor: null },
      more: { limit: 2, something: "else" },
    };
    for (const [name, options] of Object.entries(kinds)) {
      result[name] = await attempt(() => listNames(KV, { prefix: "oddLists:", ...options }));
    }
    result.prefixNumber = await attempt(() => listNames(KV, { prefix: 404 }));
    result.options = [await attempt(() => listNames(KV, "oddLists:")), await attempt(() => KV.list(5))];
    return result;
  },

  async together({ KV }) {
    const names = Array.from({ length: 50 }, (_, index) => `together:${index}`);
    await Promise.all(names.map((name) => KV.put(name, name)));
    return (await Promise.all(names.map((name) => KV.get(name)))).every((value, index) => value === names[index]);
  },

  async put({ KV }, { key, value }) {
    await KV.put(key, value);
  },

  async get({ KV }, { key }) {
    return KV.get(key);
  },

  async writes({ KV }, { key }) {
    return {
      get: await attempt(() => KV.get(key)),
      put: await attempt(() => KV.put(key, "changed")),
      streamed: await attempt(() => KV.put(key, streamOf("changed"))),
      delete: await attempt(() => KV.delete(key)),
      list: await listNames(KV),
      after: await attempt(() => KV.get(key)),
    };
  },
};

export default {
  async fetch(request, env) {
    const scenario = SCENARIOS[new URL(request.url).pathname.slice(1)];
    try {
      const { binding = "KV", ...given } = await request.json();
      return Response.json({ result: (await scenario({ KV: env[binding] }, given)) ?? null });
    } catch (error) {
      return Response.json({ thrown: { ...errorParts(error), stack: error.stack } });
    }
  },
};
