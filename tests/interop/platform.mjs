// What Wrangler's own getPlatformProxy gives a program, as one line of JSON: the names in `env`, and its plain values.
// Arguments: the path of a Wrangler file, and an environment of it if one is meant.
import { getPlatformProxy } from "wrangler-tunnel";

const [configPath, environment] = process.argv.slice(2);
const { env, dispose } = await getPlatformProxy({ configPath, environment, remoteBindings: false, persist: false });
const isPlain = (value) => typeof value !== "object" || Object.getPrototypeOf(value) === Object.prototype;
const values = Object.fromEntries(Object.entries(env).filter(([, value]) => isPlain(value)));
console.log(JSON.stringify({ names: Object.keys(env), values }));
await dispose();
