// The Worker of test_service_workerd.py: WebSockets, entrypoints and dispatch namespaces, used as a Worker uses them.
// A request to /NAME runs what SCENARIOS has under NAME, and answers with its result as JSON, or with {thrown}.

const DATA = { echo: ["text", "ü😀", "", new Uint8Array([0, 255]), new Uint8Array(0)] };

function errorParts(error) {
  return { class: error.constructor.name, name: error.name, message: error.message };
}

async function thrownBy(use) {
  try {
    return { value: await use() };
  } catch (error) {
    return errorParts(error);
  }
}

function described(data) {
  return typeof data === "string" ? data : `bytes ${[...new Uint8Array(data)]}`;
}

async function open(binding, path, headers = {}) {
  const response = await binding.fetch(`https://a.example${path}`, { headers: { Upgrade: "websocket", ...headers } });
  if (response.webSocket) response.webSocket.binaryType = "arraybuffer";
  return response;
}

/** What comes of a WebSocket, to its end. */
function collected(socket, count = Infinity) {
  const messages = [];
  return new Promise((resolve) => {
    socket.addEventListener("message", ({ data }) => {
      messages.push(described(data));
      if (messages.length === count) resolve({ messages });
    });
    socket.addEventListener("close", ({ code, reason }) => resolve({ messages, code, reason }));
    socket.addEventListener("error", ({ message }) => resolve({ messages, error: message }));
  });
}

const SCENARIOS = {
  async hello(env, { binding }) {
    const { status } = await env[binding].fetch("https://a.example/");
    return { said: await env[binding].hello("Ann"), status };
  },

  async echo(env, { binding }) {
    const response = await open(env[binding], "/echo");
    const socket = response.webSocket;
    const answers = collected(socket, DATA.echo.length);
    socket.accept();
    for (const message of DATA.echo) socket.send(message);
    const { messages } = await answers;
    socket.close(1000);
    return { status: response.status, room: response.headers.get("x-room"), messages };
  },

  async subprotocol(env, { binding, offered }) {
    const response = await open(env[binding], "/farewell", { "Sec-WebSocket-Protocol": offered });
    const answers = collected(response.webSocket);
    response.webSocket.accept();
    await answers;
    return { header: response.headers.get("sec-websocket-protocol"), protocol: response.webSocket.protocol };
  },

  async closedThere(env, { binding }) {
    const { webSocket } = await open(env[binding], "/farewell");
    const answers = collected(webSocket);
    webSocket.accept();
    return answers;
  },

  async closedHere(env, { binding, close, asked = binding }) {
    const { webSocket } = await open(env[binding], "/watch");
    webSocket.accept();
    const answers = collected(webSocket, 1);
    webSocket.send("hello");
    const { messages } = await answers;
    webSocket.close(...close);
    const seen = await env[asked].fetch("https://a.example/watched");
    return { messages, seen: await seen.json() };
  },

  async headers(env, { binding }) {
    const { webSocket } = await open(env[binding], "/headers?a=b", { "X-Asked": "yes", Cookie: "a=1" });
    const answers = collected(webSocket);
    webSocket.accept();
    return JSON.parse((await answers).messages[0]);
  },

  async refused(env, { binding, path }) {
    const response = await open(env[binding], path);
    const headers = Object.fromEntries(["x-reason", "x-plain"].map((name) => [name, response.headers.get(name)]));
    return { status: response.status, socket: response.webSocket === null, headers, body: await response.text() };
  },

  async flood(env, { binding }) {
    const { webSocket } = await open(env[binding], "/flood");
    let [count, size, inOrder] = [0, 0, true];
    const end = new Promise((resolve) => {
      webSocket.addEventListener("message", ({ data }) => {
        const bytes = new Uint8Array(data);
        inOrder &&= bytes[0] === count % 256;
        count += 1;
        size += bytes.length;
      });
      webSocket.addEventListener("close", ({ code }) => resolve(code));
    });
    webSocket.accept();
    return { code: await end, count, size, inOrder };
  },

  async large(env, { binding, size }) {
    const { webSocket } = await open(env[binding], "/echo");
    const back = new Promise((resolve) => {
      webSocket.addEventListener("message", ({ data }) => resolve(data.byteLength));
      webSocket.addEventListener("close", ({ code, reason }) => resolve([code, reason]));
    });
    webSocket.accept();
    webSocket.send(new Uint8Array(size));
    const answer = await back;
    webSocket.close(1000);
    return answer;
  },

  async many(env, { binding, count }) {
    const talk = async (index) => {
      const { webSocket } = await open(env[binding], "/echo");
      const answers = collected(webSocket, 1);
      webSocket.accept();
      webSocket.send(`${index}`);
      const { messages } = await answers;
      webSocket.close(1000);
      return messages[0];
    };
    return Promise.all(Array.from({ length: count }, (_, index) => talk(index)));
  },

  async entrypoint({ ADMIN }) {
    return [await ADMIN.role(), await (await ADMIN.fetch("https://a.example/")).text()];
  },

  async dispatched({ DISPATCH }, { get }) {
    const service = DISPATCH.get(...get);
    const hello = await thrownBy(() => service.hello("World"));
    const response = await service.fetch("https://a.example/x?y", { method: "POST", body: "ü" });
    return { hello, status: response.status, body: await response.text() };
  },

  async given({ DISPATCH }, { get }) {
    return DISPATCH.get(...get).given();
  },

  async dispatchedWebSocket({ DISPATCH }, { get }) {
    const { webSocket, status } = await open(DISPATCH.get(...get), "/");
    if (!webSocket) return status;
    const answers = collected(webSocket, 1);
    webSocket.accept();
    webSocket.send("hello");
    const { messages } = await answers;
    webSocket.close(1000);
    return messages;
  },
};

export default {
  async fetch(request, env) {
    // What a client asks for over a WebSocket of its own is passed on as it is.
    const { pathname, searchParams } = new URL(request.url);
    if (request.headers.get("upgrade")) return env[searchParams.get("binding")].fetch(request);
    const scenario = SCENARIOS[pathname.slice(1)];
    try {
      return Response.json({ result: await scenario(env, await request.json()) });
    } catch (error) {
      return Response.json({ thrown: { ...errorParts(error), stack: error.stack } });
    }
  },
};
