// The server of the benchmarks on npm capnweb over `ws`. What it prints and reads is in ../lines.py.
// Run with --expose-gc. The members of Api are those of ../ours/server.py.
import { createInterface } from "node:readline";
import WebSocket, { WebSocketServer } from "ws";

// Node 20 has no WebSocket of its own, and capnweb looks for the global one.
globalThis.WebSocket = WebSocket;
const { newWebSocketRpcSession, RpcTarget } = await import("capnweb");

class Api extends RpcTarget {
  #kept = [];

  add(a, b) {
    return a + b;
  }

  echo(value) {
    return value;
  }

  next(_step) {
    return new Api();
  }

  async callMe(callback, times) {
    let sum = 0;
    for (let i = 0; i < times; i++) sum += await callback(i);
    return sum;
  }

  keep(callback) {
    // What came as an argument is released when the call ends.
    return this.#kept.push(callback.dup());
  }

  async sink(stream) {
    let bytes = 0;
    for await (const chunk of stream) bytes += chunk.byteLength;
    return bytes;
  }
}

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

function cpuSeconds() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
server.on("connection", (socket) => newWebSocketRpcSession(socket, new Api()));
server.on("listening", () => say({ port: server.address().port }));

for await (const question of createInterface({ input: process.stdin })) {
  if (question === "cpu") {
    say({ cpu: cpuSeconds() });
  } else {
    globalThis.gc();
    say({ rss: process.memoryUsage().rss });
  }
}
process.exit(0);
