// What a deployed "raw" d1 binding is to Cloudflare's proxy Worker: something whose fetch speaks D1's own HTTP protocol.
// Here it is that of Miniflare's simulator, which stands behind env.DB of the runtime.
export default {
  fetch: (request, env) => env.DB.fetcher.fetch(request),
};
