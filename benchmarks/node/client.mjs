// The client of the benchmarks on npm capnweb over `ws`: `client.mjs URL`. What it reads and prints is in ../lines.py.
// The workloads are those of ../ours/client.py, in the same order of calls.
import { createInterface } from "node:readline";
import WebSocket from "ws";

// Node 20 has no WebSocket of its own, and capnweb looks for the global one.
globalThis.WebSocket = WebSocket;
const { newWebSocketRpcSession } = await import("capnweb");

const CHUNK = 64 * 1024;
const MEBIBYTE = new Uint8Array(1024 * 1024);
const RECORD = {
  id: 1,
  name: "x".repeat(100),
  tags: ["a", "b", "c"],
  items: Array.from({ length: 20 }, (_, i) => ({ i, v: i * 1.5, s: `item${i}` })),
};

// How many calls are in flight where a workload holds on to what it gets, and where its latency is measured.
const WIDTH = 100;

const [url] = process.argv.slice(2);
const api = newWebSocketRpcSession(url);
// Further sessions, and stubs that keep the server's targets alive.
const sessions = [];
const held = [];

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

function cpuSeconds() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

async function inFlight(width, count, call) {
  for (let done = 0; done < count; done += width) {
    await Promise.all(Array.from({ length: width }, (_, i) => call(i)));
  }
}

function chunks(count) {
  let left = count;
  return new ReadableStream({
    pull(controller) {
      if (left-- > 0) controller.enqueue(new Uint8Array(CHUNK));
      else controller.close();
    },
  });
}

const WORKLOADS = {
  async sequential(count) {
    for (let i = 0; i < count; i++) await api.add(i, 1);
  },
  concurrent100: (count) => inFlight(100, count, (i) => api.add(i, 1)),
  concurrent1000: (count) => inFlight(1000, count, (i) => api.add(i, 1)),
  // There are no tasks here: the same once more.
  tasks100: (count) => inFlight(100, count, (i) => api.add(i, 1)),
  tasks1000: (count) => inFlight(1000, count, (i) => api.add(i, 1)),
  async pipeline3(count) {
    for (let i = 0; i < count; i++) await api.next(0).next(0).add(1, 2);
  },
  record50: (count) => inFlight(50, count, () => api.echo(RECORD)),
  async callback(count) {
    await api.callMe((value) => value, count);
  },
  async echo1MiB(count) {
    for (let i = 0; i < count; i++) await api.echo(MEBIBYTE);
  },
  async streamMiB(count) {
    await api.sink(chunks((count * MEBIBYTE.length) / CHUNK));
  },
  async "p99 of 100"(count) {
    const taken = [];
    const oneAfterAnother = async () => {
      for (let i = 0; i < Math.floor(count / WIDTH); i++) {
        const begun = performance.now();
        await api.add(i, 1);
        taken.push((performance.now() - begun) / 1000);
      }
    };
    await Promise.all(Array.from({ length: WIDTH }, oneAfterAnother));
    taken.sort((a, b) => a - b);
    return { p99: taken[Math.ceil(0.99 * taken.length) - 1] };
  },
  async "open sessions"(count) {
    for (let i = 0; i < count; i++) {
      const session = newWebSocketRpcSession(url);
      await session.add(i, 1);
      sessions.push(session);
    }
  },
  async "call sessions"(_count) {
    let slowest = 0;
    for (const [i, session] of sessions.entries()) {
      const begun = performance.now();
      await session.add(i, 1);
      slowest = Math.max(slowest, (performance.now() - begun) / 1000);
    }
    return { slowest };
  },
  "hold targets": (count) => inFlight(WIDTH, count, async (i) => held.push(await api.next(i))),
  "lend callbacks": (count) => inFlight(WIDTH, count, (i) => api.keep((value) => value + i)),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { run, count } = JSON.parse(line);
  const cpu = cpuSeconds();
  const start = performance.now();
  const found = await WORKLOADS[run](count);
  const seconds = (performance.now() - start) / 1000;
  say({ seconds, cpu: cpuSeconds() - cpu, ...found });
}
process.exit(0);
