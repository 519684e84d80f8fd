// The Worker of the benchmarks of remote bindings: a request to /WORKLOAD?count=N does it so many times, one after another, on
// its own bindings, wherever they are. The time is taken by who asks. A picture to work on is the body of the request.

const VALUE = "x".repeat(1000);
const MEBIBYTE = new Uint8Array(1024 * 1024);

async function repeat(count, work) {
  for (let i = 0; i < count; i++) await work(i);
}

const WORKLOADS = {
  async prepare(env) {
    await env.KV.put("key", VALUE);
    await env.R2.put("object", MEBIBYTE);
    await env.DB.exec("CREATE TABLE IF NOT EXISTS people (id INTEGER PRIMARY KEY, name TEXT)");
    const insert = env.DB.prepare("INSERT OR REPLACE INTO people (id, name) VALUES (?, ?)");
    await env.DB.batch(Array.from({ length: 100 }, (_, id) => insert.bind(id, `name ${id}`)));
  },
  "KV get": (env, count) => repeat(count, () => env.KV.get("key")),
  "KV put": (env, count) => repeat(count, (i) => env.KV.put(`key ${i % 100}`, VALUE)),
  "R2 get 1 MiB": (env, count) => repeat(count, async () => (await env.R2.get("object")).arrayBuffer()),
  "R2 put 1 MiB": (env, count) => repeat(count, () => env.R2.put("object", MEBIBYTE)),
  "D1 query": (env, count) =>
    repeat(count, (i) => env.DB.prepare("SELECT name FROM people WHERE id = ?").bind(i % 100).first()),
  "image thumbnail": (env, count, picture) =>
    repeat(count, async () => {
      const input = env.IMAGES.input(new Blob([picture]).stream());
      const output = await input.transform({ width: 256 }).output({ format: "image/webp" });
      await output.response().arrayBuffer();
    }),
};

export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    const workload = decodeURIComponent(url.pathname.slice(1));
    try {
      await WORKLOADS[workload](env, Number(url.searchParams.get("count")), await request.arrayBuffer());
      return new Response("done");
    } catch (error) {
      return new Response(`${workload}: ${error.stack}`, { status: 500 });
    }
  },
};
