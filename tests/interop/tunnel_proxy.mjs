// Writes the proxy Worker of the newer Wrangler, whose TCP tunnel the older one has not, as a module of its own, and prints
// the module's path: node tunnel_proxy.mjs
// That Wrangler (npm "wrangler-tunnel" here) carries the Worker as the text of a module inside its command line.
import { readFileSync, writeFileSync } from "node:fs";
import { runInNewContext } from "node:vm";

const NAME = "ProxyServerWorker";
const FOLDER = "node_modules/wrangler-tunnel/wrangler-dist/";

const program = readFileSync(new URL(`${FOLDER}cli.js`, import.meta.url), "utf8");
// A string in single quotes: what may stand in one is anything but a quote, or anything behind a backslash.
const [, literal] = program.match(new RegExp(`${NAME}_default = ('(?:[^'\\\\]|\\\\[^])*')`));
writeFileSync(new URL(`${FOLDER}${NAME}.js`, import.meta.url), runInNewContext(literal));
console.log(`${FOLDER}${NAME}.js`);
