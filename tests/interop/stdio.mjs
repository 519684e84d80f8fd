// An npm capnweb peer on a byte stream, for the Python tests:
//   node stdio.mjs LEVEL FRAMING                serves Api on standard input and output, as a worker process
//   node stdio.mjs LEVEL FRAMING COMMAND...     starts a worker process, has it check every value, and prints a report
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { Api, World } from "./api.mjs";
import { startStreamSession } from "./bytestream.mjs";
import { VALUES, same } from "./values.mjs";

const [level, framing, ...command] = process.argv.slice(2);
// UTF-8 has no lone surrogates, and on the levels but "string" the tests write CBOR.
const names = Object.keys(VALUES).filter((name) => level === "string" || !name.includes("surrogate"));

function serve() {
  const world = new World();
  const entry = { id: 1 };
  Object.assign(entry, startStreamSession(process.stdin, process.stdout, new Api(world, entry), { level, framing }));
  world.sessions.set(entry.id, entry);
  process.stdin.on("end", () => process.exit(0));
}

async function check({ remote, stats }) {
  for (const name of names) {
    assert.ok(same(await remote.value(name), VALUES[name]()), `received ${name}`);
    assert.equal(await remote.check(name, VALUES[name]()), true, `sent ${name}`);
    assert.ok(same(await remote.echo(VALUES[name]()), VALUES[name]()), `echoed ${name}`);
  }
  assert.equal(await remote.call((number) => number + 1, 41), 42);
  const counter = remote.counter("chained", 5);
  assert.equal(await counter.increment(2), 7);
  counter[Symbol.dispose]();
  await assert.rejects(async () => await remote.fail("range"), RangeError);
  return { values: names.length, imports: stats().imports, exports: stats().exports };
}

async function drive() {
  const worker = spawn(command[0], command.slice(1), { stdio: ["pipe", "pipe", "inherit"] });
  const session = startStreamSession(worker.stdout, worker.stdin, undefined, { level, framing });
  const report = await check(session);
  const exited = new Promise((resolve) => worker.once("exit", resolve));
  worker.stdin.end();
  console.log(JSON.stringify({ ...report, exit: await exited }));
}

if (command.length > 0) await drive();
else serve();
