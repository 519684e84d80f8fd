// The d1 binding used by npm capnweb on Node: node d1.mjs URL [--cbor]
// Prints one line of JSON with what came of each use, and ends.
import { CBOR_PROTOCOL, connect, roundTrips } from "./wire.mjs";

const protocols = process.argv.includes("--cbor") ? [CBOR_PROTOCOL] : [];
const { remote: db, log, socket } = await connect(process.argv[2], { protocols });

async function thrownBy(promise) {
  try {
    return { value: await promise };
  } catch (error) {
    return { name: error.name, message: error.message, cause: error.cause?.message };
  }
}

async function chain() {
  const start = log.mark();
  const { results, meta } = await db.prepare("SELECT ?1 AS a, ?2 AS b").bind(1, "x").all();
  return { results, changes: meta.changes, roundTrips: roundTrips(log.kinds(start)) };
}

async function batch() {
  const insert = db.prepare("INSERT INTO t (b) VALUES (?)");
  const start = log.mark();
  const done = await db.batch([insert.bind("one"), insert.bind(new Uint8Array([0, 255])), db.prepare("SELECT b FROM t")]);
  return { changes: done.map(({ meta }) => meta.changes), rows: done[2].results, roundTrips: roundTrips(log.kinds(start)) };
}

async function session() {
  const one = db.withSession("first-primary");
  const before = await one.getBookmark();
  await one.prepare("INSERT INTO t (b) VALUES ('session')").run();
  const bookmark = await one.getBookmark();
  const rows = await db.withSession(bookmark).prepare("SELECT b FROM t WHERE b = 'session'").raw();
  return { before, bookmark: typeof bookmark, rows };
}

async function query() {
  const { success, results } = await db.query({ queries: [{ sql: "SELECT ? AS a, 2 AS a", params: [1] }] });
  const failed = await db.query({ queries: [{ sql: "SELEC" }] });
  return { success, data: results.queryResults[0].data, failed: { success: failed.success, message: failed.error.message } };
}

const report = {
  exec: await db.exec("CREATE TABLE t (a INTEGER PRIMARY KEY, b UNIQUE)\nINSERT INTO t (b) VALUES ('first')"),
  chain: await chain(),
  batch: await batch(),
  first: [
    await db.prepare("SELECT a, b FROM t ORDER BY a").first(),
    await db.prepare("SELECT a, b FROM t ORDER BY a").first("b"),
    await db.prepare("SELECT a FROM t WHERE 0").first(),
  ],
  raw: await db.prepare("SELECT a, a FROM t ORDER BY a").raw({ columnNames: true }),
  types: await db.prepare("SELECT typeof(?) AS a, typeof(?) AS b, ? AS c").bind(1, null, true).first(),
  large: await db.prepare("SELECT 9223372036854775807 AS a").first("a"),
  session: await session(),
  query: await query(),
  dump: new TextDecoder().decode((await new Response(await db.dump()).arrayBuffer()).slice(0, 15)),
  errors: {
    table: await thrownBy(db.prepare("SELECT * FROM missing").all()),
    unique: await thrownBy(db.batch([db.prepare("DELETE FROM t"), db.prepare("INSERT INTO t (b) VALUES (1), (1)")])),
    column: await thrownBy(db.prepare("SELECT 1 AS a").first("c")),
    undefined: await thrownBy(db.prepare("SELECT ?").bind(undefined).all()),
    bigint: await thrownBy(db.prepare("SELECT ?").bind(1n).all()),
    object: await thrownBy(db.prepare("SELECT ?").bind({}).all()),
    exec: await thrownBy(db.exec("SELECT 1\nSELEC 2")),
    stranger: await thrownBy(db.batch([1])),
  },
  rows: await db.prepare("SELECT count(*) AS n FROM t").first("n"),
};
console.log(JSON.stringify(report));
socket.terminate();
