// The Worker of test_tunnel_workerd.py: raw TCP through env.DB, a VPC binding. A request to /NAME runs what SCENARIOS has
// under NAME, and answers as worker.mjs does.

const encoder = new TextEncoder();
const decoder = new TextDecoder();

async function thrownBy(promise) {
  try {
    return { value: await promise };
  } catch ({ name, message }) {
    return { name, message };
  }
}

/** All bytes until the end. */
async function everything(readable) {
  return new Uint8Array(await new Response(readable).arrayBuffer());
}

/** As many bytes as are asked for. */
async function exactly(reader, size) {
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; ) {
    const { done, value } = await reader.read();
    if (done) throw new Error(`the end came after ${at} bytes`);
    bytes.set(value, at);
    at += value.byteLength;
  }
  return bytes;
}

async function send(socket, bytes) {
  const writer = socket.writable.getWriter();
  await writer.write(bytes);
  writer.releaseLock();
}

/** A message of PostgreSQL's protocol (section "Message Formats"): a type, if any, the length, and the rest. */
function postgresMessage(type, ...texts) {
  const body = encoder.encode(texts.map((text) => `${text}\0`).join(""));
  const message = new Uint8Array(type.length + 4 + body.length);
  message.set(encoder.encode(type));
  new DataView(message.buffer).setInt32(type.length, 4 + body.length);
  message.set(body, type.length + 4);
  return message;
}

const SCENARIOS = {
  async words({ DB }, { address, words }) {
    const socket = DB.connect(address);
    const reader = socket.readable.getReader();
    const back = [];
    for (const word of words) {
      await send(socket, encoder.encode(word));
      back.push(decoder.decode(await exactly(reader, encoder.encode(word).length)));
    }
    await socket.close();
    return back;
  },

  async toTheEnd({ DB }, { address }) {
    return decoder.decode(await everything(DB.connect(address).readable));
  },

  /** Much, in both directions at a time. */
  async large({ DB }, { address, size }) {
    const socket = DB.connect(address);
    const data = new Uint8Array(size);
    for (let at = 0; at < size; at += 4096) data[at] = at / 4096;
    const [back] = await Promise.all([exactly(socket.readable.getReader(), size), send(socket, data)]);
    await socket.close();
    return back.every((byte, at) => byte === data[at]);
  },

  async failing({ DB }, { address }) {
    const socket = DB.connect(address);
    const opened = thrownBy(socket.opened);
    const read = await thrownBy(everything(socket.readable).then((bytes) => bytes.length));
    return { read, opened: await opened, closed: await thrownBy(socket.closed) };
  },

  /** What is read after the end of what is sent. */
  async endThenRead({ DB }, { address, text }) {
    const socket = DB.connect(address);
    const writer = socket.writable.getWriter();
    await writer.write(encoder.encode(text));
    await writer.close();
    return decoder.decode(await everything(socket.readable));
  },

  /** What becomes of what is sent after the end of what is read. */
  async readThenSend({ DB }, { address, text }) {
    const socket = DB.connect(address);
    const read = decoder.decode(await everything(socket.readable));
    return { read, sent: await thrownBy(send(socket, encoder.encode(text))) };
  },

  async fetched({ DB }, { url }) {
    const response = await DB.fetch(url);
    return { status: response.status, body: await response.text() };
  },

  /** What PostgreSQL says to a password that is none: the types of its messages, and the text of its error. */
  async postgres({ DB }, { address, user }) {
    const socket = DB.connect(address);
    const startup = postgresMessage("", "\0\x03\0\0user", user, "database", user, "");
    await send(socket, startup);
    const reader = socket.readable.getReader();
    const { value } = await reader.read();
    const [type, , , , , , , , method] = value;
    return { type: String.fromCharCode(type), method };
  },
};

export default {
  async fetch(request, env) {
    const scenario = SCENARIOS[new URL(request.url).pathname.slice(1)];
    try {
      return Response.json({ result: await scenario(env, await request.json()) });
    } catch ({ name, message, stack }) {
      return Response.json({ thrown: { name, message, stack } });
    }
  },
};
