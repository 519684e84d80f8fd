// What a Worker does with env.IMAGES, for runtime.mjs: a request to /NAME runs what SCENARIOS has under NAME, and answers
// with {result}, or with {thrown}. The same scenarios run with our proxy behind the binding and with Miniflare's own
// images service. Nothing here judges: the Python tests do.

// In bytes: in what pieces pictures are sent.
const PIECE = 65_536;

function errorParts(error) {
  const { name, message, code } = error;
  return { name, message, code };
}

async function outcome(promise) {
  try {
    return { value: await promise };
  } catch (error) {
    return { thrown: errorParts(error) };
  }
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

function toBase64(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

/** The bytes, and so many zeros behind them. */
function padded(bytes, padding = 0) {
  const whole = new Uint8Array(bytes.length + padding);
  whole.set(bytes);
  return whole;
}

/** A stream of the bytes, in pieces of so many. */
function streamOf(bytes, size = bytes.length) {
  const { readable, writable } = new FixedLengthStream(bytes.length);
  const writer = writable.getWriter();
  (async () => {
    for (let at = 0; at < bytes.length; at += size) await writer.write(bytes.subarray(at, at + size));
    await writer.close();
  })().catch(() => {});
  return readable;
}

async function wholeOf(stream) {
  return stream === null ? null : toBase64(new Uint8Array(await new Response(stream).arrayBuffer()));
}

/** Everything that details() says but what differs from run to run. */
function settled(details) {
  if (details === null) return null;
  const { uploaded, ...rest } = details;
  return { ...rest, uploaded: new Date(uploaded).toISOString() === uploaded };
}

const SCENARIOS = {
  async uploadAndDetails({ IMAGES }, { image, options }) {
    const bytes = fromBase64(image);
    const uploaded = await IMAGES.hosted.upload(streamOf(bytes), options);
    const details = await IMAGES.hosted.image(uploaded.id).details();
    const kept = await wholeOf(await IMAGES.hosted.image(uploaded.id).bytes());
    return {
      uploaded: settled(uploaded),
      same: JSON.stringify(uploaded) === JSON.stringify(details),
      kept: kept === image,
      deleted: await IMAGES.hosted.image(uploaded.id).delete(),
    };
  },

  /** An image with so many bytes after its end, there and back; and one whose stream is left after its first piece. */
  async large({ IMAGES }, { image, padding }) {
    const start = fromBase64(image);
    const whole = padded(start, padding);
    for (let at = start.length; at < whole.length; at++) whole[at] = at % 251;
    const { id } = await IMAGES.hosted.upload(streamOf(whole, 40_000));
    const pieces = [];
    for await (const piece of await IMAGES.hosted.image(id).bytes()) pieces.push(piece);
    const kept = new Uint8Array(await new Blob(pieces).arrayBuffer());
    const left = (await IMAGES.hosted.image(id).bytes()).getReader();
    const first = await left.read();
    await left.cancel();
    return {
      same: kept.length === whole.length && kept.every((byte, at) => byte === whole[at]),
      pieces: pieces.length > 1,
      first: first.value.length > 0,
      deleted: await IMAGES.hosted.image(id).delete(),
    };
  },

  async ids({ IMAGES }, { image }) {
    const given = await IMAGES.hosted.upload(streamOf(fromBase64(image)));
    const deleted = await IMAGES.hosted.image(given.id).delete();
    return { given: /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(given.id), deleted };
  },

  async uploadForms({ IMAGES }, { image }) {
    const bytes = fromBase64(image);
    const forms = {
      arrayBuffer: () => [bytes.buffer],
      pieces: () => [streamOf(bytes, 7)],
      base64: () => [streamOf(new TextEncoder().encode(image)), { encoding: "base64" }],
      base64ArrayBuffer: () => [new TextEncoder().encode(image).buffer, { encoding: "base64" }],
    };
    const kept = {};
    for (const [name, form] of Object.entries(forms)) {
      kept[name] = await outcome(
        (async () => {
          const { id } = await IMAGES.hosted.upload(...form());
          const same = (await wholeOf(await IMAGES.hosted.image(id).bytes())) === image;
          await IMAGES.hosted.image(id).delete();
          return same;
        })(),
      );
    }
    return kept;
  },

  async missing({ IMAGES }) {
    const image = () => IMAGES.hosted.image("no/such/image");
    return {
      details: await outcome(image().details()),
      bytes: await outcome(image().bytes()),
      delete: await outcome(image().delete()),
      update: await outcome(image().update({ creator: "nobody" })),
    };
  },

  async update({ IMAGES }, { image }) {
    const { id } = await IMAGES.hosted.upload(streamOf(fromBase64(image)), {
      metadata: { a: 1, b: [null, { c: "ü" }] },
      creator: "first",
    });
    const handle = () => IMAGES.hosted.image(id);
    const steps = [];
    for (const options of [{}, { metadata: { d: true } }, { creator: "second" }, { requireSignedURLs: true }]) {
      const { id: same, ...rest } = settled(await handle().update(options));
      steps.push({ same: same === id, ...rest });
    }
    const { id: _, ...details } = settled(await handle().details());
    const kept = (await wholeOf(await handle().bytes())) === image;
    await handle().delete();
    return { steps, details, kept };
  },

  async list({ IMAGES }, { image }) {
    const ids = ["list/a", "list/b", "list/c", "list/d", "list/e"];
    for (const id of ids) {
      await IMAGES.hosted.upload(streamOf(fromBase64(image)), { id, creator: id < "list/d" ? "early" : "late" });
      // The order is by time, in whole milliseconds; a clock that stands still leaves it to the ids.
      await scheduler.wait(2);
    }
    const pages = async (options) => {
      const seen = [];
      let cursor;
      do {
        const page = await IMAGES.hosted.list({ ...options, cursor });
        seen.push({ ids: page.images.map(({ id }) => id), complete: page.listComplete, more: "cursor" in page && page.cursor !== undefined });
        cursor = page.cursor;
      } while (cursor);
      return seen;
    };
    const whole = await IMAGES.hosted.list();
    const result = {
      whole: { ids: whole.images.map(({ id }) => id), complete: whole.listComplete },
      first: settled(whole.images[0]),
      twos: await pages({ limit: 2 }),
      exact: await pages({ limit: 5 }),
      descending: await pages({ limit: 3, sortOrder: "desc" }),
      ascending: await pages({ limit: 4, sortOrder: "asc" }),
      creator: await pages({ creator: "early", limit: 2 }),
      nobody: await pages({ creator: "nobody" }),
    };
    for (const id of ids) await IMAGES.hosted.image(id).delete();
    result.empty = await pages({});
    return result;
  },

  /** The ids of what a list with these options has, of images with the numbers 0 to 3 in their metadata. */
  async filtered({ IMAGES }, { image, options }) {
    const ids = ["filtered/0", "filtered/1", "filtered/2", "filtered/3"];
    for (const [number, id] of ids.entries()) {
      await IMAGES.hosted.upload(streamOf(fromBase64(image)), { id, metadata: { nested: { number } } });
    }
    const { images } = await IMAGES.hosted.list(options);
    for (const id of ids) await IMAGES.hosted.image(id).delete();
    return images.map(({ id }) => id);
  },

  /** What an upload with these options comes to. */
  async upload({ IMAGES }, { image, padding, options }) {
    const answer = await outcome(IMAGES.hosted.upload(streamOf(padded(fromBase64(image), padding)), options));
    if (answer.value) await IMAGES.hosted.image(answer.value.id).delete();
    return answer.value ? { value: settled(answer.value) } : answer;
  },

  async uploadTwice({ IMAGES }, { image }) {
    const upload = () => IMAGES.hosted.upload(streamOf(fromBase64(image)), { id: "twice" });
    const answers = [await outcome(upload()), await outcome(upload())];
    await IMAGES.hosted.image("twice").delete();
    return answers.map(({ value, thrown }) => ({ value: value && settled(value), thrown }));
  },

  async listing({ IMAGES }, { options }) {
    return outcome(IMAGES.hosted.list(options));
  },

  async updating({ IMAGES }, { image, options }) {
    const { id } = await IMAGES.hosted.upload(streamOf(fromBase64(image)), { id: "custom" });
    const answer = await outcome(IMAGES.hosted.image(id).update(options));
    await IMAGES.hosted.image(id).delete();
    return answer;
  },

  async transformHosted({ IMAGES }, { image }) {
    const { id } = await IMAGES.hosted.upload(streamOf(fromBase64(image)));
    const result = await IMAGES.input(await IMAGES.hosted.image(id).bytes())
      .transform({ width: 10 })
      .output({ format: "image/png" });
    const made = await wholeOf(result.image());
    await IMAGES.hosted.image(id).delete();
    return { type: result.contentType(), image: made };
  },

  /** An image that the Worker announces, and somebody without its binding uploads and sees. */
  async directUpload({ RAW }, { image, options }) {
    const { id, uploadURL } = await RAW.createDirectUpload(options);
    const draft = settled(await RAW.image(id).details());
    const form = () => {
      const data = new FormData();
      data.append("file", new File([fromBase64(image)], "holiday.png"));
      return data;
    };
    const uploaded = await fetch(uploadURL, { method: "POST", body: form() });
    const again = await fetch(uploadURL, { method: "POST", body: form() });
    const shown = await fetch(await RAW.image(id).signedUrl({ variant: "public", expiresIn: 60 }));
    return {
      draft,
      uploaded: uploaded.status,
      success: (await uploaded.json()).success,
      again: again.status,
      details: settled(await RAW.image(id).details()),
      shown: (await wholeOf(shown.body)) === image,
      deleted: await RAW.image(id).delete(),
    };
  },

  async info({ IMAGES }, { image, padding, options }) {
    return outcome(IMAGES.info(streamOf(padded(fromBase64(image), padding), PIECE), options));
  },

  /** What becomes of a picture whose stream fails after these bytes of it. */
  async failing({ IMAGES }, { image }) {
    const bytes = fromBase64(image);
    const failing = () => {
      let sent = false;
      return new ReadableStream({
        pull(controller) {
          if (sent) controller.error(new RangeError("nothing more today"));
          else controller.enqueue(bytes);
          sent = true;
        },
      });
    };
    return {
      info: await outcome(IMAGES.info(failing())),
      drawn: await outcome(IMAGES.input(streamOf(bytes)).draw(failing()).output({ format: "image/png" })),
      upload: await outcome(IMAGES.hosted.upload(failing(), { id: "failing" })),
      kept: await IMAGES.hosted.image("failing").details(),
    };
  },

  /** A request to the binding itself, as env.IMAGES makes them. */
  async raw({ RAW }, { path, method = "POST", type, body }) {
    const init = { method, headers: type ? { "content-type": type } : {}, body };
    const response = await RAW.fetch(`https://js.images.cloudflare.com${path}`, init);
    return { status: response.status, error: response.headers.get("cf-images-binding"), text: await response.text() };
  },

  async output({ IMAGES }, { image, padding, drawn = [], steps = [], output }) {
    let picture = IMAGES.input(streamOf(padded(fromBase64(image), padding), PIECE));
    for (const step of steps) picture = picture.transform(step);
    for (const { image, options } of drawn) picture = picture.draw(streamOf(fromBase64(image), PIECE), options);
    const answer = await outcome(picture.output(output));
    if (answer.thrown) return answer;
    return { value: { type: answer.value.contentType(), image: await wholeOf(answer.value.image()) } };
  },
};

export default {
  async fetch(request, env) {
    const scenario = SCENARIOS[new URL(request.url).pathname.slice(1)];
    try {
      return Response.json({ result: await scenario(env, await request.json()) });
    } catch (error) {
      return Response.json({ thrown: { ...errorParts(error), stack: error.stack } });
    }
  },
};
