// What tests/chat.py does, as a Worker: the oracle of what a service binding answers to service_worker.mjs.
import { WorkerEntrypoint } from "cloudflare:workers";

const FLOOD = 2000;
const FLOOD_SIZE = 10_000;

// How the last WebSocket to /watch was closed.
const ends = [];

function websocket(request, path) {
  if (path === "/refuse") return new Response("members only", { status: 403, headers: { "x-reason": "none" } });
  const offered = (request.headers.get("sec-websocket-protocol") ?? "").split(",").map((name) => name.trim());
  const headers = { "x-room": "lobby" };
  if (offered.includes("chat")) headers["sec-websocket-protocol"] = "chat";
  const [client, server] = Object.values(new WebSocketPair());
  server.binaryType = "arraybuffer";
  server.accept();
  if (path === "/farewell") {
    server.send("bye");
    server.close(4001, "enough");
  } else if (path === "/headers") {
    server.send(JSON.stringify([request.url, request.headers.get("x-asked"), request.headers.get("cookie")]));
    server.close(1000);
  } else if (path === "/flood") {
    for (let number = 0; number < FLOOD; number++) server.send(new Uint8Array(FLOOD_SIZE).fill(number % 256));
    server.close(1000);
  } else {
    server.addEventListener("message", ({ data }) => server.send(data));
    server.addEventListener("close", ({ code, reason }) => {
      if (path !== "/watch") return;
      ends.push([code, reason]);
    });
  }
  return new Response(null, { status: 101, webSocket: client, headers });
}

export default class extends WorkerEntrypoint {
  hello(name) {
    return `Hello, ${name}!`;
  }

  async fetch(request) {
    const path = new URL(request.url).pathname;
    if (path === "/fail") throw new Error("no room today");
    if (request.headers.get("upgrade") === "websocket" && path !== "/plain") return websocket(request, path);
    if (path === "/watched") {
      // One request cannot wake another here.
      while (ends.length === 0) await scheduler.wait(1);
      return Response.json(ends.pop());
    }
    return new Response(`plain ${path}`, { headers: { "x-plain": "yes" } });
  }
}

export class Admin extends WorkerEntrypoint {
  role() {
    return `admin of ${this.ctx.props?.realm ?? "nothing"}`;
  }

  async fetch() {
    return new Response(this.role());
  }
}
