// The Worker that test_d1_workerd.py runs, over a remote binding and over Miniflare's own simulator: a request to /NAME runs
// what SCENARIOS has under NAME with env.DB, and answers with its result as JSON, or with what it threw as {thrown}.

/** What a promise came to: its value, or the parts of what it threw. */
async function attempt(run) {
  try {
    return { value: await run() };
  } catch (error) {
    return { name: error.name, message: error.message, cause: error.cause?.message };
  }
}

/** Of what is known of a result, that which is the same everywhere. A row that was never inserted has no id. */
function stable({ meta: { changes, changed_db, last_row_id }, ...rest }) {
  return { ...rest, meta: { changes, changed_db, ...(changes > 0 && { last_row_id }) } };
}

/** A statement by one of the methods of a prepared one. */
async function by(DB, method, sql, params = [], ...args) {
  const result = await DB.prepare(sql).bind(...params)[method](...args);
  return method === "all" || method === "run" ? stable(result) : result;
}

const SCENARIOS = {
  /** Runs statements in turn: [method, sql, params, ...arguments]. */
  async each({ DB }, { statements }) {
    const results = [];
    for (const [method, sql, params, ...args] of statements) {
      results.push(await attempt(() => by(DB, method, sql, params, ...args)));
    }
    return results;
  },

  async batch({ DB }, { statements, session }) {
    const database = session === undefined ? DB : DB.withSession(session);
    const prepared = statements.map(([sql, params = []]) => database.prepare(sql).bind(...params));
    return attempt(async () => (await database.batch(prepared)).map(stable));
  },

  async exec({ DB }, { sql }) {
    return attempt(async () => {
      const { count, duration } = await DB.exec(sql);
      return { count, duration: typeof duration };
    });
  },

  /** What cannot be bound. */
  async types({ DB }) {
    const values = [undefined, 1n, Symbol.iterator.description, {}, () => 1, [256], ["a"], new Date(Number.NaN), new Map()];
    return Promise.all(values.map((value) => attempt(async () => DB.prepare("SELECT ? AS v").bind(value).first("v"))));
  },

  /** What can, and what it is for SQL. */
  async values({ DB }) {
    const values = [
      null, 1, -0.5, 2 ** 53, Number.NaN, Infinity, "ü\u{1f600}", "", "a\u0000b", true, false,
      new Uint8Array([0, 255]), new Uint8Array([1, 2]).buffer, new Int16Array([1, -1]), [1, 2.5], [],
    ];
    return Promise.all(
      values.map((value) => attempt(() => DB.prepare("SELECT ?1 AS v, typeof(?1) AS t").bind(value).first())),
    );
  },

  async meta({ DB }, { sql }) {
    const { meta } = await DB.prepare(sql).run();
    return meta;
  },

  async sessions({ DB }) {
    const session = DB.withSession("first-primary");
    const before = session.getBookmark();
    await session.prepare("CREATE TABLE IF NOT EXISTS sessions (a)").run();
    await session.prepare("INSERT INTO sessions VALUES (1)").run();
    const written = session.getBookmark();
    const reader = DB.withSession(written);
    const rows = await reader.prepare("SELECT a FROM sessions").raw();
    const unconstrained = DB.withSession();
    const first = unconstrained.getBookmark();
    await unconstrained.prepare("SELECT 1").all();
    return {
      before,
      written: typeof written,
      grows: written.localeCompare(reader.getBookmark()) <= 0,
      rows,
      first,
      second: typeof unconstrained.getBookmark(),
    };
  },

  async dump({ DB }) {
    return attempt(async () => {
      const dumped = new Uint8Array(await DB.dump());
      return { size: dumped.byteLength, start: new TextDecoder().decode(dumped.subarray(0, 15)) };
    });
  },

  /** Batches until one fails: how many were acknowledged, and what the failure says. */
  async untilFailure({ DB }, { name }) {
    for (let number = 0; ; number++) {
      const add = DB.prepare("INSERT INTO halves VALUES (?1, zeroblob(20000))").bind(`${name}-${number}`);
      try {
        await DB.batch([add, add]);
      } catch (error) {
        return { acknowledged: number, message: error.message };
      }
    }
  },

  /** Many at a time: each of them adds one. */
  async together({ DB }, { count }) {
    await DB.exec("CREATE TABLE IF NOT EXISTS counter (n)");
    await DB.prepare("INSERT INTO counter VALUES (0)").run();
    await Promise.all(Array.from({ length: count }, () => DB.prepare("UPDATE counter SET n = n + 1").run()));
    return DB.prepare("SELECT n FROM counter").first("n");
  },
};

export default {
  async fetch(request, env) {
    const scenario = SCENARIOS[new URL(request.url).pathname.slice(1)];
    try {
      return Response.json({ result: await scenario(env, await request.json()) });
    } catch (error) {
      return Response.json({ thrown: { name: error.name, message: error.message, stack: error.stack } });
    }
  },
};
