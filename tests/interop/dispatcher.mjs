// A dispatch namespace for Cloudflare's proxy Worker under Miniflare, which has none of its own: a wrapped binding, whose
// `get` gives what services it is bound to. Of a name that nothing has, using it fails, as the runtime's own does.
export default function dispatcher(env) {
  return {
    get(name) {
      if (Object.hasOwn(env, name)) return env[name];
      const fetch = () => {
        throw new Error("Worker not found.");
      };
      return { fetch };
    },
  };
}
