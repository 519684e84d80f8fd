// A real workerd for the Python tests: node workerd.mjs SCRIPT CONNECTION_STRING SERVICE...
// It runs a script of this folder with the named services and IMAGES as remote bindings of one proxy, prints {"url"} when
// that listens on 127.0.0.1, and ends when its standard input does. The script may import npm capnweb as "./capnweb.js".
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Log, LogLevel, Miniflare } from "miniflare";

const script = process.argv[2];
const remoteProxyConnectionString = new URL(process.argv[3]);
const services = process.argv.slice(4);

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

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
  compatibilityDate: "2026-04-01",
  // Miniflare asks the proxy for a binding by the name that it has here.
  serviceBindings: Object.fromEntries(services.map((name) => [name, { name, remoteProxyConnectionString }])),
  images: { binding: "IMAGES", remoteProxyConnectionString },
});
process.stdin.resume().on("end", async () => {
  await miniflare.dispose();
  process.exit(0);
});
console.log(JSON.stringify({ url: String(await miniflare.ready) }));
