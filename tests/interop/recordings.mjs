// What npm capnweb sends for callbacks of map(): prints {name: [expression, ...]}, the expressions of all calls that one
// recording sends on a session. test_recordings.py holds the same table in Python.
const { RpcPromise, RpcSession, RpcStub, RpcTarget } = await import("capnweb");

class Target extends RpcTarget {}

/** A session whose peer never answers, and all that it sends. */
function silentSession() {
  const sent = [];
  const transport = {
    send: (text) => void sent.push(JSON.parse(text)),
    receive: () => new Promise(() => {}),
  };
  return { api: new RpcSession(transport).getRemoteMain(), sent };
}

const RECORDINGS = {
  "the item itself": ({ api }) => api.list().map((x) => x),
  "of the main object": ({ api }) => api.map((x) => x),
  "of a member": ({ api }) => api.team.members.map((x) => x.name),
  "of an index": ({ api }) => api.list()["0"].map((x) => x),
  "a constant": ({ api }) => api.list().map(() => 7),
  "nothing": ({ api }) => api.list().map(() => null),
  "undefined": ({ api }) => api.list().map(() => undefined),
  "an empty list": ({ api }) => api.list().map(() => []),
  "lists and objects": ({ api }) => api.list().map((x) => [x, [x.a, { b: x.b.c, c: [] }], {}]),
  "special values": ({ api }) => api.list().map((x) => ({
    big: 10n ** 20n,
    inf: [Infinity, -Infinity, NaN],
    date: new Date(1749340800000),
    bytes: new Uint8Array([251, 255]),
    error: new TypeError("why"),
    x,
  })),
  "a call of the item": ({ api }) => api.list().map((x) => x.profile.name()),
  "the item called": ({ api }) => api.list().map((x) => x(1)),
  "members of results": ({ api }) => api.list().map((x) => ({ id: x.id, name: x.profile().name.first })),
  "calls on results": ({ api }) => api.list().map((x) => x.a(1).b(2).c(x.d())),
  "arguments": ({ api }) => api.list().map((x) => x.f(1, "two", [3, { four: x.four }], null, undefined)),
  "options": ({ api }) => api.list().map((x) => x.f(x.y, { width: 256, by: x.z })),
  "calls that are not used": ({ api }) => api.list().map((x) => { x.one(); x.two(); }),
  "a captured main object": ({ api }) => api.list().map((x) => api.get(x)),
  "called twice, captured twice": ({ api }) => api.list().map((x) => [api.f(x), api.g(x)]),
  "captured after what its arguments capture": ({ api }) => {
    const other = api.other();
    return api.list().map((x) => api.f(other, x));
  },
  "a captured promise": ({ api }) => {
    const name = api.name();
    return api.list().map((x) => x.greet(name));
  },
  "captured once as a value": ({ api }) => {
    const name = api.name();
    return api.list().map((x) => [x.greet(name), name.first, x.f(name.last)]);
  },
  "a member of a captured promise": ({ api }) => {
    const config = api.config();
    return api.list().map((x) => [x.f(config.a.b), config.c]);
  },
  "a captured stub": ({ api }) => {
    const stub = api.dup();
    return api.list().map((x) => [x.f(stub), stub.g(x), stub.h, x.g(stub)]);
  },
  "a local stub": ({ api }) => {
    const stub = new RpcStub(new Target());
    return api.list().map((x) => [stub.add(x), x.f(stub)]);
  },
  "a local function": ({ api }) => {
    const stub = new RpcStub(() => 1);
    return api.list().map((x) => stub(x));
  },
  "a local promise": ({ api }) => {
    const promise = new RpcPromise(new Promise(() => {}));
    return api.list().map((x) => promise.add(x));
  },
  "another session": ({ api, other }) => api.list().map((x) => [other.f(x), other.g(x)]),
  "a duplicate of the item": ({ api }) => api.list().map((x) => [x.dup(), x.f(x.dup())]),
  "a duplicate of a member": ({ api }) => api.list().map((x) => [x.a.dup(), x.b.c.dup().d]),
  "nested": ({ api }) => api.list().map((x) => x.items.map((y) => y.name)),
  "nested, of a result": ({ api }) => api.list().map((i) => api.range(i).map((j) => api.range(j))),
  "nested, of a captured promise": ({ api }) => {
    const others = api.others();
    return api.list().map((x) => others.rows.map((y) => [x, y]));
  },
  "nested, with the outer item": ({ api }) => api.list().map((x) => x.items.map((y) => ({ y, x, name: x.name, n: x.f(y) }))),
  "nested, with outer results": ({ api }) => api.list().map((x) => {
    const one = x.one();
    const two = api.two(one);
    return x.items.map((y) => [y.f(two, one), one.g(y), two]);
  }),
  "nested, in one and used by another": ({ api }) => api.list().map((x) => {
    const inner = x.items.map((y) => y.name);
    return [inner, x.f(inner), inner[0], inner.map((z) => z)];
  }),
  "three deep": ({ api }) => {
    const stub = api.dup();
    return api.list().map((x) => x.a.map((y) => y.b.map((z) => [x, y, z, stub.f(x, y, z), api.g(z), z.f(stub)])));
  },
  "twice the same inner subject": ({ api }) => {
    const others = api.others();
    return api.list().map((x) => [others.map((y) => y), others.map((y) => [x, y]), x.f(others)]);
  },
  "a map of a map": ({ api }) => api.list().map((x) => x.a).map((y) => y.b),
  "pipelined upon": ({ api }) => api.f(api.list().map((x) => x.a)[0].name),
};

const sent = {};
for (const [name, record] of Object.entries(RECORDINGS)) {
  const session = silentSession();
  record({ api: session.api, other: silentSession().api });
  sent[name] = session.sent.filter(([kind]) => kind === "push").map(([, expression]) => expression);
}
console.log(JSON.stringify(sent));
process.exit(0);
