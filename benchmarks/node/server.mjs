// The server of the benchmarks on npm capnweb over `ws`. It prints {"port": ...} once it accepts connections, answers
// every line on its standard input with {"rss": bytes} after collecting garbage, and ends when that input is closed.
// Run with --expose-gc. The members of Api are those of ../ours/server.py.
import { createInterface } from "node:readline";
import WebSocket, { WebSocketServer } from "ws";

// Node 20 has no WebSocket of its own, and capnweb looks for the global one.
globalThis.WebSocket = WebSocket;
const { newWebSocketRpcSession, RpcTarget } = await import("capnweb");

class Api extends RpcTarget {
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

  async sink(stream) {
    let bytes = 0;
    for await (const chunk of stream) bytes += chunk.byteLength;
    return bytes;
  }
}

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
server.on("connection", (socket) => newWebSocketRpcSession(socket, new Api()));
server.on("listening", () => say({ port: server.address().port }));

const commands = createInterface({ input: process.stdin });
commands.on("line", () => {
  globalThis.gc();
  say({ rss: process.memoryUsage().rss });
});
commands.on("close", () => process.exit(0));
