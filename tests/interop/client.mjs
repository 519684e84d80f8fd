// An npm capnweb client for the Python tests: node client.mjs URL [--cbor | --cbor-always] SCENARIO...
// To tcp://HOST:PORT: node client.mjs URL [--level=LEVEL] [--framing=FRAMING] SCENARIO...
// Runs each scenario (all, if none is named) on a session of its own and prints one line {"scenario", "ok", "detail", "stats"} for each.
// `--monitor=URL` is where the server itself can be asked what it holds, if URL leads to a relay. `--list` prints the names. The scenarios themselves are in scenarios.mjs.
import { CBOR_PROTOCOL, connect as connectSocket } from "./wire.mjs";
import { connectStream } from "./bytestream.mjs";
import { SCENARIOS } from "./scenarios.mjs";

const SETTLING_TRIPS = 300;
const DEADLINE_MS = 30_000;

/** Asks both sides what they hold until only the main objects are left, within a bounded number of round trips. */
async function settle(session, monitor) {
  const id = await session.remote.id();
  let local, remote;
  for (let trip = 0; trip < SETTLING_TRIPS; trip++) {
    remote = await monitor.remote.stats(id);
    local = session.stats();
    const left = [local.imports, local.exports, remote.imports, remote.exports];
    if (left.every((count) => count === 1)) break;
  }
  return { local: { ...local }, remote: { ...remote } };
}

function isSettled({ local, remote }) {
  return [local.imports, local.exports, remote.imports, remote.exports].every((count) => count === 1);
}

/** `promise`, or an error when it takes longer than a scenario may. */
async function withinDeadline(promise) {
  const overdue = Promise.withResolvers();
  const timer = setTimeout(() => overdue.reject(new Error(`no answer in ${DEADLINE_MS} ms`)), DEADLINE_MS);
  try {
    return await Promise.race([promise, overdue.promise]);
  } finally {
    clearTimeout(timer);
  }
}

const connect = (url, options) => (url.startsWith("tcp:") ? connectStream : connectSocket)(url, options);

async function run(url, name, options) {
  const scenario = SCENARIOS[name];
  const session = await connect(url, options);
  const monitor = await connect(options.monitor ?? url, options);
  const opened = [session, monitor];
  const open = async (main) => {
    opened.push(await connect(url, { ...options, main }));
    return opened.at(-1);
  };
  const context = { url, ...session, api: session.remote, monitor: monitor.remote, open };
  try {
    const detail = (await withinDeadline(scenario(context))) ?? null;
    if (scenario.endsSession) return { scenario: name, ok: true, detail, stats: null };
    const stats = await withinDeadline(settle(session, monitor));
    return { scenario: name, ok: isSettled(stats), detail: isSettled(stats) ? detail : "not released", stats };
  } catch (error) {
    return { scenario: name, ok: false, detail: String(error?.stack ?? error), stats: session.stats() };
  } finally {
    for (const { socket } of opened) socket.terminate();
  }
}

const flags = process.argv.slice(2).filter((argument) => argument.startsWith("--"));
const [url, ...names] = process.argv.slice(2).filter((argument) => !argument.startsWith("--"));
if (flags.includes("--list")) {
  console.log(JSON.stringify(Object.keys(SCENARIOS)));
} else {
  const cbor = flags.some((flag) => flag.startsWith("--cbor"));
  const options = { protocols: cbor ? [CBOR_PROTOCOL] : [], always: flags.includes("--cbor-always") };
  for (const option of ["level", "framing", "monitor"]) {
    const flag = flags.find((flag) => flag.startsWith(`--${option}=`));
    if (flag) options[option] = flag.split("=")[1];
  }
  for (const name of names.length > 0 ? names : Object.keys(SCENARIOS)) console.log(JSON.stringify(await run(url, name, options)));
}
