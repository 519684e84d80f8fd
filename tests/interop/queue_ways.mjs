// Bindings that Miniflare has the parts for, but no option: a plugin of Miniflare's own kind ("unsafeBindings").
//   {type: "remote", options: {connectionString}}  a queue binding whose requests go to a proxy. Miniflare has this for the
//                                                  other types, and leaves the option out for queues
//   {type: "service", options: {queue}}            a service binding to the simulator of a queue: what a queue binding is
//                                                  in a deployed proxy Worker, where it is "raw"
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const miniflare = createRequire(import.meta.url).resolve("miniflare");
const client = readFileSync(new URL("./workers/shared/remote-proxy-client.worker.js", `file://${miniflare}`), "utf8");

const serviceName = (name) => `remote-queue:${name}`;

function binding({ name, type, options }) {
  if (type === "remote") return { name, queue: { name: serviceName(name) } };
  return { name, service: { name: `queues:queue:${options.queue}` } };
}

function service({ name, options }) {
  const bindings = [
    { name: "remoteProxyConnectionString", text: options.connectionString },
    { name: "binding", text: name },
  ];
  const modules = [{ name: "index.worker.js", esModule: client }];
  return { name: serviceName(name), worker: { compatibilityDate: "2025-01-01", modules, bindings } };
}

export const plugins = {
  "queue-ways": {
    getBindings: (bindings) => bindings?.map(binding),
    getNodeBindings: () => ({}),
    getServices: ({ options }) => options?.filter(({ type }) => type === "remote").map(service) ?? [],
  },
};
