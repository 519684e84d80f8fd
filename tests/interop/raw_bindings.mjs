// A plugin of Miniflare's, for bindings as Cloudflare's proxy Worker has them when it is deployed: "raw", a Fetcher whose
// requests go as they are to the service that stands behind a binding. The service is named in Miniflare's own way:
// "kv:ns:ID" is its simulator of a KV namespace, which runs if a binding of the ordinary kind has the same id.
// {unsafeBindings: [{name, type: "raw", plugin: {package: PATH, name: "raw"}, options: {service: "kv:ns:ID"}}]}
const raw = {
  options: { parse: (options) => options, safeParse: (data) => ({ success: true, data }) },
  getBindings: (bindings) => bindings.map(({ name, options }) => ({ name, service: { name: options.service } })),
  getNodeBindings: () => ({}),
  getServices: () => [],
};

export const plugins = { raw };
