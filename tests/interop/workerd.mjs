// A real workerd for the Python tests: node workerd.mjs CONNECTION_STRING SERVICE...
// It runs worker.mjs with the named services and IMAGES as remote bindings of one proxy, prints {"url"} when that listens
// on 127.0.0.1, and ends when its standard input does.
import { fileURLToPath } from "node:url";
import { Log, LogLevel, Miniflare } from "miniflare";

const remoteProxyConnectionString = new URL(process.argv[2]);
const services = process.argv.slice(3);

const miniflare = new Miniflare({
  host: "127.0.0.1",
  port: 0,
  cf: false,
  log: new Log(LogLevel.ERROR),
  // A list, which is taken as it is: Miniflare's own parser does not know `using`.
  modules: [{ type: "ESModule", path: fileURLToPath(new URL("worker.mjs", import.meta.url)) }],
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
