// A real workerd for the Python tests: node runtime.mjs OPTIONS
// OPTIONS is JSON: what `new Miniflare` takes; "script", a module of this folder or below to run, which may import npm
// capnweb as "./capnweb.js"; "wrangler", the package of Wrangler whose Miniflare it is; and "raw", whether the script
// gets its stores as Wrangler deploys them for the proxy Worker: each is the service behind the binding, to be fetched
// from. It prints {"url"} when that listens on 127.0.0.1, and ends when its standard input does.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const here = (file) => fileURLToPath(new URL(file, import.meta.url));

// Miniflare takes the URL of a proxy as an object.
const revived = (key, value) => (key === "remoteProxyConnectionString" ? new URL(value) : value);
const { script, raw, wrangler = "wrangler", ...options } = JSON.parse(process.argv[2], revived);
const { Log, LogLevel, Miniflare, PLUGINS } = createRequire(here(`node_modules/${wrangler}/package.json`))("miniflare");

function served({ name, kvNamespace, r2Bucket, queue, wrapped }) {
  const inner = wrapped?.innerBindings.find((binding) => binding.name === "fetcher").service;
  return { name, service: kvNamespace ?? r2Bucket ?? queue ?? inner };
}

for (const plugin of raw ? [PLUGINS.kv, PLUGINS.r2, PLUGINS.d1, PLUGINS.queues, PLUGINS.images] : []) {
  const { getBindings } = plugin;
  plugin.getBindings = async (...settings) => (await getBindings.apply(plugin, settings))?.map(served);
}

const miniflare = new Miniflare({
  host: "127.0.0.1",
  port: 0,
  cf: false,
  log: new Log(LogLevel.ERROR),
  // A list, which is taken as it is: Miniflare's own parser does not know `using`.
  modules: [
    { type: "ESModule", path: here(script) },
    {
      type: "ESModule",
      path: here("capnweb.js"),
      contents: readFileSync(here("node_modules/capnweb/dist/index-workers.js"), "utf8"),
    },
  ],
  modulesRoot: here("."),
  compatibilityDate: "2026-04-01",
  ...options,
});
process.stdin.resume().on("end", async () => {
  await miniflare.dispose();
  process.exit(0);
});
console.log(JSON.stringify({ url: String(await miniflare.ready) }));
