// The client of the benchmarks on npm capnweb over `ws`.
//   client.mjs URL measure '{"sequential": 5000, ...}'   one line {"workload", "count", "seconds"} for each
//   client.mjs URL idle 400       opens sessions, prints {"idle": 400}, and holds them until standard input is closed
// The workloads are those of ../ours/client.py, in the same order of calls.
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

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

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
  async sequential(api, count) {
    for (let i = 0; i < count; i++) await api.add(i, 1);
  },
  concurrent100: (api, count) => inFlight(100, count, (i) => api.add(i, 1)),
  concurrent1000: (api, count) => inFlight(1000, count, (i) => api.add(i, 1)),
  async pipeline3(api, count) {
    for (let i = 0; i < count; i++) await api.next(0).next(0).add(1, 2);
  },
  record50: (api, count) => inFlight(50, count, () => api.echo(RECORD)),
  async callback(api, count) {
    await api.callMe((value) => value, count);
  },
  async echo1MiB(api, count) {
    for (let i = 0; i < count; i++) await api.echo(MEBIBYTE);
  },
  async streamMiB(api, count) {
    await api.sink(chunks((count * MEBIBYTE.length) / CHUNK));
  },
};

async function measure(url, plan) {
  const api = newWebSocketRpcSession(url);
  for (const [workload, count] of Object.entries(plan)) {
    const run = WORKLOADS[workload];
    await run(api, Math.max(1, Math.min(count >> 3, 500)));
    const start = performance.now();
    await run(api, count);
    say({ workload, count, seconds: (performance.now() - start) / 1000 });
  }
}

async function idle(url, count) {
  const sessions = [];
  for (let i = 0; i < count; i++) {
    sessions.push(newWebSocketRpcSession(url));
    await sessions[i].add(i, 1);
  }
  say({ idle: sessions.length });
  for await (const _ of process.stdin);
}

const [url, mode, what] = process.argv.slice(2);
await (mode === "idle" ? idle(url, Number(what)) : measure(url, JSON.parse(what)));
process.exit(0);
