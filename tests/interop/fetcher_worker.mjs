// The Worker of test_fetcher_workerd.py: bindings of the runtime that are plain HTTP. A request to /NAME runs what SCENARIOS
// has under NAME, and answers as worker.mjs does.

async function thrownBy(promise) {
  try {
    return { value: await promise };
  } catch ({ name, message }) {
    return { name, message };
  }
}

async function parts(response) {
  return { status: response.status, headers: Object.fromEntries(response.headers), body: await response.text() };
}

const SCENARIOS = {
  async ai({ AI }, { model, inputs }) {
    return AI.run(model, inputs);
  },

  async aiError({ AI }) {
    return thrownBy(AI.run("@cf/none", { prompt: "fail" }));
  },

  /** A stream of server-sent events, as text. */
  async aiStream({ AI }) {
    return new Response(await AI.run("@cf/some", { prompt: "p", stream: true })).text();
  },

  async vectorize({ INDEX }) {
    const inserted = await INDEX.insert([{ id: "1", values: [1, 2] }]);
    const found = await INDEX.query([1, 2], { topK: 1 });
    return { inserted, found };
  },

  async browser({ BROWSER }) {
    return parts(await BROWSER.fetch("https://localhost/v1/acquire"));
  },

  /** As puppeteer connects to a browser: what a WebSocket says first, what it echoes, and how it is closed. */
  async socket(env, { binding, url, headers, messages }) {
    const response = await env[binding].fetch(url, { headers: { ...headers, Upgrade: "websocket" } });
    if (!response.webSocket) return parts(response);
    const socket = response.webSocket;
    const arrived = [];
    const ended = new Promise((resolve) => {
      socket.addEventListener("message", async ({ data }) => {
        arrived.push(typeof data === "string" ? data : [...new Uint8Array(data instanceof Blob ? await data.arrayBuffer() : data)]);
        if (arrived.length === messages.length + 1) socket.send("bye");
      });
      socket.addEventListener("close", ({ code, reason }) => resolve([code, reason]));
    });
    socket.accept();
    for (const message of messages) socket.send(typeof message === "string" ? message : new Uint8Array(message));
    return { status: response.status, arrived, end: await ended };
  },

  async certificate({ CERT }, { url }) {
    return parts(await CERT.fetch(url, { method: "POST", body: "signed", headers: { "x-a": "b" } }));
  },

  async redirect({ CERT }, { url }) {
    return parts(await CERT.fetch(url, { redirect: "manual" }));
  },

  async pipeline({ PIPE }, { records }) {
    return thrownBy(PIPE.send(records));
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
