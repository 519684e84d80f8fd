// A plugin of Miniflare: a binding of the type "raw" is the service that Miniflare itself puts behind another binding, as
// Cloudflare binds it in the proxy Worker: a Fetcher that speaks the binding's own protocol. Its option "service" names
// the service: "images:NAME" is that of the images binding NAME of the same Worker.
export const plugins = {
  raw: {
    options: undefined,
    getBindings: (bindings) => bindings.map(({ name, options }) => ({ name, service: { name: options.service } })),
    getNodeBindings: () => ({}),
    getServices: () => [],
  },
};
