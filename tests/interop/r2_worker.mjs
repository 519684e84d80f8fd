// R2 as a Worker uses it: a request to /NAME with {bucket} runs what SCENARIOS has under NAME on that binding, emptied
// before. Nothing here judges: the Python tests compare what our proxy and Miniflare's own simulator give.

const MIB = 1024 * 1024;

function errorParts({ name, message, constructor }) {
  return { class: constructor.name, name, message };
}

async function thrownBy(action) {
  try {
    return { value: shown(await action()) };
  } catch (error) {
    return { thrown: errorParts(error) };
  }
}

const hex = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** An object of R2 as JSON, without what differs from one upload to the next. */
function shown(object) {
  if (object === null || object === undefined) return String(object);
  // Anything else, and what was shown already, stays as it is.
  if (object.checksums?.toJSON === undefined) return object;
  const { key, size, etag, httpEtag, httpMetadata, customMetadata, range, storageClass, ssecKeyMd5 } = object;
  const checksums = Object.fromEntries(
    ["md5", "sha1", "sha256", "sha384", "sha512"].map((name) => [name, object.checksums[name] && hex(object.checksums[name])]),
  );
  return {
    key, size, etag, httpEtag, range, storageClass, ssecKeyMd5, checksums, customMetadata, httpMetadata,
    checksumsAsJson: object.checksums.toJSON(),
    version: object.version.length,
    fresh: Math.abs(Date.now() - object.uploaded.getTime()) < 60_000,
    body: "body" in object,
  };
}

async function whole(object) {
  if (object === null || !("body" in object)) return shown(object);
  return { ...shown(object), text: await object.text(), bodyUsed: object.bodyUsed };
}

function listed({ objects, truncated, cursor, delimitedPrefixes }) {
  return { keys: objects.map(({ key }) => key), truncated, cursor: typeof cursor, delimitedPrefixes };
}

async function allPages(bucket, options) {
  const pages = [];
  let cursor;
  do {
    const page = await bucket.list({ ...options, cursor });
    pages.push({ keys: page.objects.map(({ key }) => key), prefixes: page.delimitedPrefixes });
    cursor = page.truncated ? page.cursor : undefined;
  } while (cursor !== undefined);
  return pages;
}

async function emptied(bucket) {
  for (;;) {
    const { objects, truncated } = await bucket.list();
    if (objects.length) await bucket.delete(objects.map(({ key }) => key));
    if (!truncated) return;
  }
}

async function digest(name, text) {
  return hex(await crypto.subtle.digest(name, new TextEncoder().encode(text)));
}

function stream(size, byte = 120) {
  const { readable, writable } = new FixedLengthStream(size);
  (async () => {
    const writer = writable.getWriter();
    for (let sent = 0; sent < size; sent += MIB) await writer.write(new Uint8Array(Math.min(MIB, size - sent)).fill(byte));
    await writer.close();
  })().catch(() => {});
  return readable;
}

const HTTP = {
  contentType: "text/plain",
  contentLanguage: "fi",
  contentDisposition: 'attachment; filename="ä.txt"',
  contentEncoding: "identity",
  cacheControl: "max-age=60",
  cacheExpiry: new Date("2030-01-02T03:04:05.006Z"),
};

const SCENARIOS = {
  async nothing(bucket) {
    return [shown(await bucket.head("none")), shown(await bucket.get("none")), await thrownBy(() => bucket.delete("none"))];
  },

  async roundTrip(bucket) {
    const put = await bucket.put("a", "content", { httpMetadata: HTTP, customMetadata: { Name: "value", ü: "😀" } });
    return { put: shown(put), head: shown(await bucket.head("a")), get: await whole(await bucket.get("a")) };
  },

  async plain(bucket) {
    const put = await bucket.put("a", "content");
    return { put: shown(put), head: shown(await bucket.head("a")), get: await whole(await bucket.get("a")) };
  },

  async values(bucket) {
    const values = {
      text: "ü", empty: "", none: null, bytes: new Uint8Array([0, 255, 7]).subarray(1), buffer: new ArrayBuffer(3),
      blob: new Blob(["blob"], { type: "a/b" }), stream: new Response("streamed").body, fixed: stream(3),
    };
    const results = {};
    for (const [name, value] of Object.entries(values)) {
      await bucket.put(name, value);
      results[name] = hex(await (await bucket.get(name)).arrayBuffer());
    }
    return results;
  },

  async readers(bucket) {
    await bucket.put("json", '{"a": [1]}', { httpMetadata: { contentType: "application/json" } });
    const object = await bucket.get("json");
    const blob = await (await bucket.get("json")).blob();
    const headers = new Headers();
    object.writeHttpMetadata(headers);
    return {
      json: await object.json(), used: object.bodyUsed, again: await thrownBy(() => object.text()),
      blob: [blob.type, await blob.text()], headers: [...headers],
      bytes: hex(await (await bucket.get("json")).bytes()),
    };
  },

  async metadataFromHeaders(bucket) {
    const headers = new Headers({
      "Content-Type": "a/b", "Content-Language": "fi", "Content-Disposition": "inline", "Content-Encoding": "gzip",
      "Cache-Control": "no-store", Expires: "Wed, 21 Oct 2026 07:28:00 GMT", "X-Other": "1",
    });
    await bucket.put("a", "content", { httpMetadata: headers });
    const object = await bucket.get("a");
    const written = new Headers();
    object.writeHttpMetadata(written);
    return { object: await whole(object), written: [...written] };
  },

  async replaced(bucket) {
    const first = await bucket.put("a", "one", { customMetadata: { a: "1" } });
    const second = await bucket.put("a", "second");
    return { differ: first.version !== second.version, now: await whole(await bucket.get("a")) };
  },

  async keys(bucket) {
    const keys = ["../../x", "/", "//a//", "a/../b", "ü/😀", "\u0000\u0001", "%2e%2e", "a?b#c", "a b", '"', "\\", ".", "..", "", "k".repeat(1000), "ä".repeat(500)];
    for (const key of keys) await bucket.put(key, `at ${key}`);
    const found = [];
    for (const key of keys) found.push([(await bucket.head(key)).key === key, (await (await bucket.get(key)).text()) === `at ${key}`]);
    return { found, order: (await bucket.list()).objects.map(({ key }) => key) };
  },

  async longestKeys(bucket) {
    for (const key of ["k".repeat(1024), "ä".repeat(512)]) await bucket.put(key, "x");
    return listed(await bucket.list());
  },

  async badKeys(bucket) {
    const long = "k".repeat(1025);
    return {
      head: await thrownBy(() => bucket.head(long)),
      get: await thrownBy(() => bucket.get("ä".repeat(513))),
      put: await thrownBy(() => bucket.put(long, "x")),
      streamed: await thrownBy(() => bucket.put(long, stream(3 * MIB))),
      delete: await thrownBy(() => bucket.delete(["a", long])),
      create: await thrownBy(() => bucket.createMultipartUpload(long)),
    };
  },

  async ranges(bucket) {
    await bucket.put("a", "0123456789");
    await bucket.put("empty", "");
    const wanted = [
      { offset: 2 }, { offset: 2, length: 3 }, { length: 4 }, { suffix: 3 }, { suffix: 30 }, { offset: 8, length: 100 }, {},
      { offset: 0, length: 10 }, { offset: 9 }, { offset: 10 }, { offset: 11 }, { length: 0 }, { suffix: 0 }, { offset: 10, length: 1 },
      { offset: -1 }, { offset: 1.5 }, { length: -1 }, { suffix: -1 }, { suffix: 1, offset: 1 }, { suffix: 1, length: 1 },
    ];
    const results = [];
    for (const range of wanted) {
      results.push([range, await thrownBy(async () => {
        const object = await bucket.get("a", { range });
        return { range: object.range, size: object.size, text: await object.text() };
      })]);
    }
    return { results, empty: await thrownBy(async () => whole(await bucket.get("empty", { range: { offset: 0 } }))) };
  },

  async rangeHeaders(bucket) {
    await bucket.put("a", "0123456789");
    const wanted = ["bytes=2-4", "bytes=2-", "bytes=-3", "bytes=-30", "bytes=-0", "bytes=5-100", "bytes=10-", "bytes=20-30", "bytes=4-2",
      "bytes=0-1,3-4", "bytes=", "bytes=a-b", "lines=1-2", "BYTES = 1 - 2", "bytes=-", ""];
    const results = {};
    for (const text of wanted) {
      results[text] = await thrownBy(async () => {
        const object = await bucket.get("a", { range: new Headers({ Range: text }) });
        return { range: object.range, text: await object.text() };
      });
    }
    const none = await bucket.get("a", { range: new Headers({ Other: "bytes=1-2" }) });
    return { ...results, none: await none.text() };
  },

  async conditionalGets(bucket) {
    const { etag, uploaded } = await bucket.put("a", "content");
    const at = (seconds) => new Date(uploaded.getTime() + seconds * 1000);
    const conditions = {
      matches: { etagMatches: etag }, other: { etagMatches: "other" }, any: { etagMatches: "*" },
      notThis: { etagDoesNotMatch: etag }, notOther: { etagDoesNotMatch: "other" }, none: { etagDoesNotMatch: "*" },
      before: { uploadedBefore: at(10) }, notBefore: { uploadedBefore: at(-10) }, after: { uploadedAfter: at(-10) },
      notAfter: { uploadedAfter: at(10) }, exactly: { uploadedBefore: at(0) }, exactlyAfter: { uploadedAfter: at(0) },
      seconds: { uploadedAfter: at(0), secondsGranularity: true },
      matchDecides: { etagMatches: etag, uploadedBefore: at(-10) }, noneMatchDecides: { etagDoesNotMatch: "other", uploadedAfter: at(10) },
      both: { etagMatches: etag, uploadedAfter: at(10) },
      quoted: { etagMatches: `"${etag}"` }, quotedNot: { etagDoesNotMatch: `"${etag}"` },
      empty: {},
    };
    const results = {};
    for (const [name, onlyIf] of Object.entries(conditions)) results[name] = await thrownBy(async () => whole(await bucket.get("a", { onlyIf })));
    return { results, missing: shown(await bucket.get("none", { onlyIf: { etagMatches: "a" } })) };
  },

  async conditionalHeaders(bucket) {
    const { etag, uploaded } = await bucket.put("a", "content");
    const at = (seconds) => new Date(uploaded.getTime() + seconds * 1000).toUTCString();
    const conditions = {
      match: { "If-Match": `"${etag}"` }, mismatch: { "If-Match": '"other"' }, several: { "If-Match": `"other", "${etag}"` },
      weak: { "If-Match": `W/"${etag}"` }, weakNone: { "If-None-Match": `W/"${etag}"` }, any: { "If-Match": "*" },
      noneMatch: { "If-None-Match": `"${etag}"` }, noneMatchOther: { "If-None-Match": '"other"' },
      modified: { "If-Modified-Since": at(-60) }, notModified: { "If-Modified-Since": at(60) },
      unmodified: { "If-Unmodified-Since": at(60) }, changed: { "If-Unmodified-Since": at(-60) },
      sameSecond: { "If-Modified-Since": at(0) }, other: { "X-A": "b" }, bad: { "If-Match": "nonsense" }, badNone: { "If-None-Match": "nonsense" },
    };
    const results = {};
    for (const [name, headers] of Object.entries(conditions)) {
      results[name] = await thrownBy(async () => whole(await bucket.get("a", { onlyIf: new Headers(headers) })));
    }
    return results;
  },

  async conditionalPuts(bucket) {
    const put = (key, value, onlyIf) => thrownBy(async () => shown(await bucket.put(key, value, { onlyIf })));
    const results = { ifThere: await put("a", "no", { etagMatches: "*" }), ifNew: await put("a", "one", { etagDoesNotMatch: "*" }) };
    results.ifNewAgain = await put("a", "two", { etagDoesNotMatch: "*" });
    results.still = await (await bucket.get("a")).text();
    const { etag, uploaded } = await bucket.head("a");
    results.matching = await put("a", "three", { etagMatches: etag });
    results.stale = await put("a", "four", { etagMatches: etag });
    results.after = await put("a", "five", { uploadedAfter: new Date(uploaded.getTime() + 60_000) });
    results.before = await put("a", "six", { uploadedBefore: new Date(uploaded.getTime() + 60_000) });
    results.afterNone = await put("none", "x", { uploadedAfter: new Date(0) });
    results.beforeNone = await put("new", "x", { uploadedBefore: new Date(0) });
    results.headers = await put("a", "seven", new Headers({ "If-None-Match": "*" }));
    results.quoted = await put("a", "eight", { etagMatches: '"x"' });
    results.now = await (await bucket.get("a")).text();
    return results;
  },

  async checksums(bucket) {
    const text = "checked";
    const md5 = hex(await crypto.subtle.digest("MD5", new TextEncoder().encode(text)));
    const given = {
      md5, sha1: await digest("SHA-1", text), sha256: await digest("SHA-256", text), sha384: await digest("SHA-384", text),
      sha512: await digest("SHA-512", text),
    };
    const results = {};
    for (const [name, value] of Object.entries(given)) {
      const bytes = Uint8Array.from(value.match(/../g), (pair) => parseInt(pair, 16));
      results[name] = {
        hex: await thrownBy(() => bucket.put(name, text, { [name]: value })),
        bytes: await thrownBy(() => bucket.put(name, text, { [name]: bytes })),
        buffer: await thrownBy(() => bucket.put(name, text, { [name]: bytes.buffer })),
        kept: shown(await bucket.head(name)),
        wrong: await thrownBy(() => bucket.put(name, "other", { [name]: value })),
        still: await (await bucket.get(name)).text(),
        short: await thrownBy(() => bucket.put(name, text, { [name]: value.slice(2) })),
        shortBytes: await thrownBy(() => bucket.put(name, text, { [name]: bytes.slice(1) })),
        noHex: await thrownBy(() => bucket.put(name, text, { [name]: "g".repeat(value.length) })),
      };
    }
    results.several = await thrownBy(() => bucket.put("a", text, { md5, sha1: given.sha1 }));
    return results;
  },

  async metadataLimits(bucket) {
    const put = (size, character = "v") => thrownBy(() => bucket.put("a", "x", { customMetadata: { k: character.repeat(size) } }));
    return {
      small: await put(2047), over: await put(8192), wide: await put(4097, "€"),
      upload: await thrownBy(() => bucket.createMultipartUpload("a", { customMetadata: { k: "v".repeat(8192) } }).then(() => "made")),
      types: await thrownBy(() => bucket.put("a", "x", { customMetadata: { number: 1, truth: true } })),
    };
  },

  async badPuts(bucket) {
    const { readable } = new TransformStream();
    return {
      unknownLength: await thrownBy(() => bucket.put("a", readable)),
      number: await thrownBy(() => bucket.put("a", 1)),
      object: await thrownBy(() => bucket.put("a", {})),
      noValue: await thrownBy(() => bucket.put("a")),
      short: await thrownBy(async () => {
        const { readable, writable } = new FixedLengthStream(10);
        const writer = writable.getWriter();
        const writing = writer.write(new Uint8Array(3)).then(() => writer.close()).catch(() => {});
        try {
          return await bucket.put("short", readable);
        } finally {
          await writing;
        }
      }),
      nothing: shown(await bucket.head("short")),
    };
  },

  async deletes(bucket) {
    const keys = Array.from({ length: 20 }, (_, index) => `k${String(index).padStart(2, "0")}`);
    for (const key of keys) await bucket.put(key, key);
    const one = await bucket.delete("k00");
    const several = await bucket.delete(["k01", "k02", "none", "k03", "k03"]);
    const none = await bucket.delete([]);
    return { one: String(one), several: String(several), none: String(none), left: listed(await bucket.list()) };
  },

  async listing(bucket) {
    const keys = ["a", "a/1", "a/2/x", "a/2/y", "a/3", "b", "b/1", "ä", "😀", "\uffee", "Z", "z/", "z/z"];
    for (const key of keys) await bucket.put(key, key);
    const queries = {
      all: {}, prefix: { prefix: "a/" }, unmatched: { prefix: "none" }, delimiter: { delimiter: "/" },
      both: { prefix: "a/", delimiter: "/" }, deep: { prefix: "a/2", delimiter: "/" }, limit: { limit: 3 }, startAfter: { startAfter: "a/2/x" },
      startAfterNone: { startAfter: "a/2" }, startAndPrefix: { prefix: "a/", startAfter: "a/2/x" }, startBefore: { prefix: "b", startAfter: "a" },
      startBehind: { prefix: "a", startAfter: "b" }, one: { limit: 1, delimiter: "/" }, emptyDelimiter: { delimiter: "" }, long: { delimiter: "/2/" },
      startInGroup: { delimiter: "/", startAfter: "a/1" }, emptyPrefix: { prefix: "" },
    };
    const results = {};
    for (const [name, options] of Object.entries(queries)) results[name] = listed(await bucket.list(options));
    return results;
  },

  async pages(bucket) {
    for (const key of ["a", "b/1", "b/2", "b/3", "c", "d/1", "d/2", "e"]) await bucket.put(key, key);
    return {
      plain: await allPages(bucket, { limit: 3 }), exact: await allPages(bucket, { limit: 4 }), prefixes: await allPages(bucket, { limit: 2, delimiter: "/" }),
      ones: await allPages(bucket, { limit: 1, delimiter: "/" }), prefixed: await allPages(bucket, { limit: 1, prefix: "b/" }),
    };
  },

  async include(bucket) {
    await bucket.put("a", "x", { httpMetadata: { contentType: "a/b" }, customMetadata: { a: "1" } });
    await bucket.put("b", "y");
    const results = {};
    for (const include of [["httpMetadata"], ["customMetadata"], ["httpMetadata", "customMetadata"]]) {
      results[include] = (await bucket.list({ include })).objects.map(shown);
    }
    return { ...results, unknown: await thrownBy(() => bucket.list({ include: ["nonsense"] })) };
  },

  async nothingIncluded(bucket) {
    await bucket.put("a", "x", { httpMetadata: { contentType: "a/b" }, customMetadata: { a: "1" } });
    return { implicit: (await bucket.list()).objects.map(shown), explicit: (await bucket.list({ include: [] })).objects.map(shown) };
  },

  async badLists(bucket) {
    return {
      zero: await thrownBy(() => bucket.list({ limit: 0 })), many: await thrownBy(() => bucket.list({ limit: 1001 })),
      negative: await thrownBy(async () => listed(await bucket.list({ limit: -5 }))),
    };
  },

  async large(bucket, { size }) {
    await bucket.put("large", stream(size));
    const object = await bucket.get("large");
    let bytes = 0;
    let same = true;
    for await (const chunk of object.body) {
      bytes += chunk.length;
      same &&= chunk.every((byte) => byte === 120);
    }
    const part = await (await bucket.get("large", { range: { offset: size - 10, length: 7 } })).text();
    return { size: object.size, bytes, same, part };
  },

  async leftUnread(bucket) {
    await bucket.put("large", stream(3 * MIB));
    const object = await bucket.get("large");
    const reader = object.body.getReader();
    await reader.read();
    await reader.cancel();
    await bucket.delete("large");
    return shown(await bucket.head("large"));
  },

  async multipart(bucket) {
    const upload = await bucket.createMultipartUpload("m", { httpMetadata: { contentType: "a/b" }, customMetadata: { a: "1" } });
    const first = await upload.uploadPart(1, stream(5 * MIB, 97));
    const second = await bucket.resumeMultipartUpload("m", upload.uploadId).uploadPart(2, "the end");
    const before = shown(await bucket.head("m"));
    const object = await upload.complete([first, second]);
    const across = await (await bucket.get("m", { range: { offset: 5 * MIB - 3, length: 6 } })).text();
    return {
      key: upload.key, id: typeof upload.uploadId, numbers: [first.partNumber, second.partNumber], etags: [typeof first.etag, typeof second.etag],
      before, object: shown(object), head: shown(await bucket.head("m")), across,
      listed: listed(await bucket.list()), suffix: await (await bucket.get("m", { range: { suffix: 7 } })).text(),
    };
  },

  async multipartOrder(bucket) {
    const upload = await bucket.createMultipartUpload("m");
    const third = await upload.uploadPart(3, "c");
    const first = await upload.uploadPart(1, stream(5 * MIB, 97));
    const object = await upload.complete([first, third]);
    return { object: shown(object), end: await (await bucket.get("m", { range: { suffix: 2 } })).text() };
  },

  async multipartOnePart(bucket) {
    const upload = await bucket.createMultipartUpload("m");
    return { object: shown(await upload.complete([await upload.uploadPart(7, "small")])), text: await (await bucket.get("m")).text() };
  },

  async multipartReplacedPart(bucket) {
    const upload = await bucket.createMultipartUpload("m");
    const old = await upload.uploadPart(1, "old");
    const part = await upload.uploadPart(1, "new");
    const stale = await thrownBy(() => upload.complete([old]));
    return { stale, object: shown(await upload.complete([part])), text: await (await bucket.get("m")).text() };
  },

  async multipartErrors(bucket) {
    const make = () => bucket.createMultipartUpload("m");
    const small = await make();
    const smallParts = [await small.uploadPart(1, "a"), await small.uploadPart(2, "b")];
    const upload = await make();
    const part = await upload.uploadPart(1, "a");
    const other = bucket.resumeMultipartUpload("other", upload.uploadId);
    const unknown = bucket.resumeMultipartUpload("m", "nonsense");
    const results = {
      small: await thrownBy(() => small.complete(smallParts)),
      wrongEtag: await thrownBy(() => upload.complete([{ partNumber: 1, etag: "wrong" }])),
      missingPart: await thrownBy(() => upload.complete([part, { partNumber: 2, etag: part.etag }])),
      twice: await thrownBy(() => upload.complete([part, part])),
      zero: await thrownBy(() => upload.uploadPart(0, "x")), tooMany: await thrownBy(() => upload.uploadPart(10001, "x")),
      zeroComplete: await thrownBy(() => upload.complete([{ partNumber: 0, etag: "x" }])),
      otherKey: await thrownBy(() => other.uploadPart(1, "x")), otherComplete: await thrownBy(() => other.complete([part])),
      otherAbort: await thrownBy(() => other.abort()),
      unknownPart: await thrownBy(() => unknown.uploadPart(1, "x")), unknownComplete: await thrownBy(() => unknown.complete([part])),
      unknownAbort: await thrownBy(() => unknown.abort()),
      abort: await thrownBy(() => upload.abort()), abortAgain: await thrownBy(() => upload.abort()),
      partAfter: await thrownBy(() => upload.uploadPart(1, "x")), completeAfter: await thrownBy(() => upload.complete([part])),
      nothing: shown(await bucket.head("m")),
    };
    const done = await make();
    const donePart = await done.uploadPart(1, "x");
    await done.complete([donePart]);
    return {
      ...results, completeAgain: await thrownBy(() => done.complete([donePart])), abortDone: await thrownBy(() => done.abort()),
      partDone: await thrownBy(() => done.uploadPart(2, "x")), text: await (await bucket.get("m")).text(),
    };
  },

  async unevenParts(bucket) {
    const upload = await bucket.createMultipartUpload("m");
    const parts = [await upload.uploadPart(1, stream(5 * MIB)), await upload.uploadPart(2, stream(6 * MIB)), await upload.uploadPart(3, "c")];
    const larger = await thrownBy(() => upload.complete(parts.slice(0, 2)));
    return { uneven: await thrownBy(() => upload.complete(parts)), larger, swapped: await thrownBy(() => upload.complete([parts[2], parts[0]])) };
  },

  async multipartReplaces(bucket) {
    await bucket.put("m", "plain");
    const upload = await bucket.createMultipartUpload("m");
    await upload.complete([await upload.uploadPart(1, "parts")]);
    const first = await (await bucket.get("m")).text();
    await bucket.put("m", "plain again");
    return [first, await whole(await bucket.get("m"))];
  },

  async partValues(bucket) {
    const values = {
      text: "ü", empty: "", bytes: new Uint8Array([0, 255, 7]).subarray(1), view: new DataView(new ArrayBuffer(3), 1), wide: new Uint16Array([258]),
      buffer: new ArrayBuffer(3), blob: new Blob(["blob"], { type: "a/b" }), file: new File(["file"], "name"), stream: new Response("streamed").body,
      fixed: stream(3), nothing: null, unknownLength: new TransformStream().readable, number: 1,
    };
    const results = {};
    for (const [name, value] of Object.entries(values)) {
      results[name] = await thrownBy(async () => {
        const upload = await bucket.createMultipartUpload(name);
        await upload.complete([await upload.uploadPart(1, value)]);
        return hex(await (await bucket.get(name)).arrayBuffer());
      });
    }
    return results;
  },

  async uploadOptions(bucket) {
    const headers = new Headers({ "Content-Type": "a/b", "Cache-Control": "no-store", Expires: "Wed, 21 Oct 2026 07:28:00 GMT", "X-Other": "1" });
    const made = async (options) => {
      const upload = await bucket.createMultipartUpload("m", options);
      return shown(await upload.complete([await upload.uploadPart(10000, "x")]));
    };
    return {
      headers: await made({ httpMetadata: headers }), object: await made({ httpMetadata: HTTP, customMetadata: { a: "1", A: "2" } }), none: await made(),
      empty: await thrownBy(async () => (await bucket.createMultipartUpload("m")).complete([])),
      emptyKey: await thrownBy(async () => { const upload = await bucket.createMultipartUpload(""); return upload.complete([await upload.uploadPart(1, "x")]); }),
    };
  },

  async conditionsAndRanges(bucket) {
    const { etag, uploaded } = await bucket.put("a", "0123456789");
    const at = (milliseconds) => new Date(uploaded.getTime() + milliseconds);
    const asked = {
      met: { onlyIf: { etagMatches: etag }, range: { offset: 2, length: 3 } }, unmet: { onlyIf: { etagMatches: "other" }, range: { offset: 2 } },
      unmetOutside: { onlyIf: { etagMatches: "other" }, range: { offset: 20 } }, outside: { onlyIf: { etagMatches: etag }, range: { offset: 20 } },
      rangeHeader: { onlyIf: new Headers({ "If-None-Match": '"other"' }), range: new Headers({ Range: "bytes=-3" }) },
      far: { range: { offset: 2 ** 53 } }, long: { range: { offset: 3, length: 2 ** 53 } }, longSuffix: { range: { suffix: 2 ** 53 } },
      beforeSeconds: { onlyIf: { uploadedBefore: at(0), secondsGranularity: true } }, afterSeconds: { onlyIf: { uploadedAfter: at(-1000), secondsGranularity: true } },
      between: { onlyIf: { uploadedAfter: at(-1), uploadedBefore: at(1) } }, neither: { onlyIf: { uploadedAfter: at(1), uploadedBefore: at(-1) } },
      noDate: { onlyIf: { uploadedBefore: new Date(NaN) } }, emptyEtag: { onlyIf: { etagMatches: "" } }, emptyNot: { onlyIf: { etagDoesNotMatch: "" } },
      badDate: { onlyIf: new Headers({ "If-Modified-Since": "nonsense" }) }, nulls: { onlyIf: null, range: null }, undefineds: { onlyIf: undefined, range: undefined },
    };
    const results = {};
    for (const [name, options] of Object.entries(asked)) results[name] = await thrownBy(async () => whole(await bucket.get("a", options)));
    return results;
  },

  async etagHeaders(bucket) {
    const { etag } = await bucket.put("a", "content");
    const headers = {
      list: `"x" , "${etag}"`, commas: `,, "${etag}",`, weakList: `W/"x", W/"${etag}"`, listAndAny: `"x", *`, unclosed: `"${etag}`, noComma: `"x" "${etag}"`,
      weakUnquoted: `W/${etag}`, bare: etag, thenBare: `"${etag}", bare`, empty: '""', noCommaAny: '"x" *', noCommaWeak: `"x" W/"${etag}"`,
    };
    const results = {};
    for (const [name, value] of Object.entries(headers)) {
      for (const header of ["If-Match", "If-None-Match"]) {
        results[`${name} ${header}`] = await thrownBy(async () => shown(await bucket.get("a", { onlyIf: new Headers({ [header]: value }) })).body);
      }
    }
    return results;
  },

  async deepPages(bucket) {
    for (const key of ["p/a", "p/b/1", "p/b/2", "p/c", "p/d/x/1", "p/d/y", "q"]) await bucket.put(key, key);
    return {
      ones: await allPages(bucket, { prefix: "p/", delimiter: "/", limit: 1 }), twos: await allPages(bucket, { prefix: "p/", delimiter: "/", limit: 2 }),
      deep: await allPages(bucket, { prefix: "p/d/", delimiter: "/", limit: 1 }), half: await allPages(bucket, { prefix: "p", delimiter: "/", limit: 1 }),
      after: await allPages(bucket, { prefix: "p/", startAfter: "p/b/1", limit: 1 }), wide: await allPages(bucket, { delimiter: "b/", limit: 2 }),
      include: (await bucket.list({ prefix: "p/", limit: 1, include: ["customMetadata"] })).objects.map(shown),
    };
  },

  async listedObjects(bucket) {
    await bucket.put("a", "x", { httpMetadata: HTTP });
    const headersOf = async (include) => thrownBy(async () => {
      const headers = new Headers();
      (await bucket.list({ include })).objects[0].writeHttpMetadata(headers);
      return [...headers];
    });
    return { without: await headersOf(["customMetadata"]), with: await headersOf(["httpMetadata"]) };
  },

  async oddMetadata(bucket) {
    const put = (options) => thrownBy(async () => {
      await bucket.put("a", "x", options);
      return shown(await bucket.head("a"));
    });
    return {
      noExpiry: await put({ httpMetadata: { cacheExpiry: new Date(NaN) } }), early: await put({ httpMetadata: { cacheExpiry: new Date(-1) } }),
      badExpires: await put({ httpMetadata: new Headers({ Expires: "nonsense" }) }), empty: await put({ httpMetadata: {}, customMetadata: {} }),
      emptyValues: await put({ httpMetadata: { contentType: "" }, customMetadata: { "": "", a: "" } }), cases: await put({ customMetadata: { a: "1", A: "2" } }),
      surrogate: await put({ customMetadata: { "\ud800": "\udfff" } }), line: await put({ httpMetadata: { contentType: "a\r\nb: c" } }),
      nulls: await put({ httpMetadata: null, customMetadata: undefined, storageClass: undefined, md5: undefined, ssecKey: undefined }),
    };
  },

  async halfKeys(bucket) {
    await bucket.put("half \ud800", "x");
    return { listed: listed(await bucket.list()), head: shown(await bucket.head("half \ud800")), replaced: shown(await bucket.head("half \ufffd")) };
  },

  async concurrently(bucket) {
    const names = Array.from({ length: 20 }, (_, index) => `k${index}`);
    await Promise.all(names.map((name) => bucket.put(name, name.repeat(1000))));
    const texts = await Promise.all(names.map(async (name) => (await (await bucket.get(name)).text()) === name.repeat(1000)));
    await Promise.all(names.map(() => bucket.put("same", "content")));
    return { texts, same: await (await bucket.get("same")).text() };
  },

  async storageClass(bucket) {
    const put = await bucket.put("a", "x", { storageClass: "InfrequentAccess" });
    return { put: put.storageClass, head: (await bucket.head("a")).storageClass, bad: await thrownBy(() => bucket.put("a", "x", { storageClass: "Nonsense" })) };
  },

  async manyDeletes(bucket) {
    const keys = (count) => Array.from({ length: count }, (_, index) => `k${index}`);
    return { thousand: await thrownBy(() => bucket.delete(keys(1000))), more: await thrownBy(() => bucket.delete(keys(1001))) };
  },

  async ssec(bucket) {
    const bytes = new Uint8Array(32).map((_, index) => index);
    const ssecKey = hex(bytes);
    const other = "00".repeat(32);
    const put = await bucket.put("a", "content", { ssecKey: bytes.buffer });
    const text = async (key, options) => (await bucket.get(key, options)).text();
    const results = {
      md5s: [put.ssecKeyMd5, (await bucket.head("a")).ssecKeyMd5, (await bucket.list()).objects[0].ssecKeyMd5],
      read: await thrownBy(() => text("a", { ssecKey })),
      withBytes: await thrownBy(() => text("a", { ssecKey: bytes, range: { suffix: 3 } })),
      without: await thrownBy(() => bucket.get("a")), wrong: await thrownBy(() => bucket.get("a", { ssecKey: other })),
      unmet: shown(await bucket.get("a", { ssecKey, onlyIf: { etagMatches: "other" } })).body,
    };
    await bucket.put("plain", "content");
    const upload = await bucket.createMultipartUpload("m", { ssecKey });
    const errors = {
      plain: await thrownBy(() => bucket.get("plain", { ssecKey })), partWithout: await thrownBy(() => upload.uploadPart(1, "x")),
      partWrong: await thrownBy(() => upload.uploadPart(1, "x", { ssecKey: other })),
      upperCase: await thrownBy(() => bucket.put("a", "x", { ssecKey: "AB".repeat(32) })),
      short: await thrownBy(() => bucket.put("a", "x", { ssecKey: "ab" })),
      shortBytes: await thrownBy(() => bucket.put("a", "x", { ssecKey: bytes.slice(1) })),
    };
    const parts = [await upload.uploadPart(1, stream(5 * MIB, 97), { ssecKey }), await upload.uploadPart(2, "end", { ssecKey: bytes })];
    const object = await upload.complete(parts);
    return { ...results, errors, whole: object.ssecKeyMd5, end: await text("m", { ssecKey, range: { suffix: 5 } }) };
  },
};

export default {
  async fetch(request, env) {
    const scenario = SCENARIOS[new URL(request.url).pathname.slice(1)];
    try {
      const values = await request.json();
      const bucket = env[values.bucket];
      await emptied(bucket);
      return Response.json({ result: await scenario(bucket, values) });
    } catch (error) {
      return Response.json({ thrown: { ...errorParts(error), stack: error.stack } });
    }
  },
};
