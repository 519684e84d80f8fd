"""protocol.md is true: every fenced block of it is run, against the code that it describes.

What a block means is said in the document's own section "How to read the examples". Here are the parser and one
runner for each kind of block; whatever is wrong is reported with the line of the document that says it.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

import anyio
import attrs
import httpx2
import pytest
import pyvips
from anyio.abc import TaskGroup
from byhand import Peer, by_hand
from proxying import SECRET, Reply, Wire, fetch, opener, proxy, websocket_scope, wired

import capnweb_py
from capnweb_py import (
    Limits,
    RpcSession,
    SessionOptions,
    asgi_app,
    deserialize,
    http_batch,
    http_batch_response,
    open_session,
    serialize,
    serve,
)
from capnweb_py.codec import CBOR, JSON, chosen_codec
from capnweb_py.deserialize import DESERIALIZERS
from capnweb_py.serialize import SERIALIZERS
from capnweb_py.session import Message
from capnweb_py.standalone import NO_SESSION
from capnweb_py.transports.asgi import serve_websocket
from capnweb_py.transports.driver import close_reason
from capnweb_py.transports.framing import framing_named
from capnweb_py.transports.websocket import subprotocols_for
from proxy_server.app import ProxyApp
from proxy_server.bindings import Declaration
from proxy_server.bindings.dispatch_namespace import DispatchNamespace
from proxy_server.bindings.images import MAX_FIELD_BYTES, ImagesService
from proxy_server.bindings.images_options import MAX_HOSTED_BYTES
from proxy_server.bindings.multipart import MAX_FORM_BYTES, MAX_PARTS
from proxy_server.bindings.service import RpcService
from proxy_server.bindings.targets import Factory
from proxy_server.bindings.upstream import Upstream
from proxy_server.control import obey
from proxy_server.imaging.options import MAX_OPERATIONS
from proxy_server.imaging.rendering import MAX_SOURCES
from proxy_server.imaging.sources import MAX_IMAGE_BYTES
from proxy_server.stores.images_files import FileImageStore

pytestmark = pytest.mark.anyio

DOCUMENT = Path(__file__).parent.parent / "protocol.md"

# Fewer blocks than these mean that a part of the document has lost its examples.
FLOORS = {
    "python": 2,
    "wire": 43,
    "value": 8,
    "cbor": 4,
    "level": 2,
    "framing": 2,
    "subprotocols": 1,
    "close": 1,
    "batch": 7,
    "asgi": 3,
    "http": 16,
    "control": 1,
}

# What a value, or the outcome of a message, is said to be when it is an error: its class and its text.
ERROR = re.compile(r"(TypeError|ProtocolError|LimitExceeded|UnreadableValue): (.*)")


@attrs.frozen
class Line:
    """One line inside a block, and its number in the document."""

    number: int
    text: str


@attrs.frozen
class Block:
    """One fenced block: the words of its info string, and its lines without comments and blank ones."""

    number: int
    kind: str
    settings: dict[str, int]
    lines: list[Line]


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a document."""
    blocks: list[Block] = []
    block: Block | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```") and block is None:
            kind, *settings = line.removeprefix("```").split() or [""]
            pairs = (setting.partition("=") for setting in settings)
            block = Block(number, kind, {name: int(value) for name, _, value in pairs}, [])
        elif line.startswith("```") and block is not None:
            blocks.append(block)
            block = None
        elif block is not None and (block.kind == "python" or (line and not line.startswith("#"))):
            block.lines.append(Line(number, line))
    assert block is None, f"protocol.md:{len(text.splitlines())}: the last block is not closed"
    return blocks


@contextmanager
def at(line: Line) -> Iterator[None]:
    """Have whatever goes wrong with a line reported as the line's."""
    try:
        yield
    except Exception as group:
        error = first_of(group)
        problem = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        raise AssertionError(f"protocol.md:{line.number}: {line.text!r}: {problem}") from error


def first_of(error: Exception) -> Exception:
    """The error that task groups have wrapped."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def agree(found: object, said: object) -> None:
    """Compare by what is printed: 1, 1.0 and True are equal, and NaN is not even equal to itself."""
    assert repr(found) == repr(said), f"it is {found!r}"


def split(line: Line, *arrows: str) -> tuple[str, str, str]:
    """What stands left and right of an arrow, and the arrow between."""
    found = re.fullmatch(f"(.*?) *({'|'.join(map(re.escape, arrows))}) *(.*)", line.text)
    assert found is not None, f"none of {', '.join(arrows)} is in the line"
    return found[1], found[2], found[3]


# Blocks of Python: the objects that other blocks call.


def classes_of(blocks: Sequence[Block]) -> dict[str, Any]:
    """What the document's Python defines."""
    namespace: dict[str, Any] = vars(capnweb_py) | {"__name__": "protocol"}
    for block in blocks:
        if block.kind == "python":
            source = "\n" * block.number + "\n".join(line.text for line in block.lines)
            exec(compile(source, str(DOCUMENT), "exec"), namespace)
    return namespace


async def run_python(block: Block) -> None:
    """They are defined before anything runs: see CLASSES."""


# Blocks of messages.


class Conversation:
    """A session whose peer is the document, and the program that uses it on this side."""

    def __init__(self, peer: Peer, tasks: TaskGroup) -> None:
        self._peer = peer
        self._tasks = tasks
        self._names: dict[str, Any] = CLASSES | {"session": peer.session, "remote": peer.main}
        self._heard: list[Any] = []
        # Where the program raised what no line has looked at since.
        self._unseen: Line | None = None

    async def take(self, line: Line) -> None:
        mark, _, rest = line.text.partition(" ")
        steps = {">": self._say, "<": self._hear, "$": self._do, "=": self._check}
        with at(line):
            assert mark in steps, f"a line begins with one of {' '.join(steps)}"
            steps[mark](line, rest)
        await anyio.wait_all_tasks_blocked()

    def end(self) -> None:
        if self._unseen is not None:
            with at(self._unseen):
                raise self._names["error"]
        self._listen()
        assert not self._heard, f"the session also sends {self._heard}"

    def _listen(self) -> None:
        self._heard += self._peer.hear()

    def _say(self, line: Line, message: str) -> None:
        self._peer.session.receive(message)

    def _hear(self, line: Line, message: str) -> None:
        if not self._heard:
            self._listen()
        assert self._heard, "the session sends nothing"
        agree(self._heard.pop(0), json.loads(message))

    def _do(self, line: Line, statement: str) -> None:
        code = compile(statement, line.text, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            self._tasks.start_soon(self._finish, line, eval(code, self._names))
        else:
            exec(code, self._names)

    async def _finish(self, line: Line, running: Awaitable[Any]) -> None:
        try:
            await running
        except Exception as error:
            self._names["error"] = error
            self._unseen = line

    def _check(self, line: Line, expression: str) -> None:
        stats = self._peer.session.stats()
        self._names |= {"imports": stats.imports, "exports": stats.exports}
        assert eval(expression, self._names), "it is not so"
        if "error" in expression:
            self._unseen = None


async def run_wire(block: Block) -> None:
    settings = dict(block.settings)
    releases_streams = bool(settings.pop("releases_streams", 0))
    names: Literal["camel", "exact"] = "camel" if settings.pop("camel", 0) else "exact"
    options = SessionOptions(limits=Limits(**settings), names=names)
    opened = by_hand(CLASSES["Api"](), options, releases_streams=releases_streams)
    async with opened as peer, anyio.create_task_group() as tasks:
        conversation = Conversation(peer, tasks)
        for line in block.lines:
            await conversation.take(line)
        with at(Line(block.number, "the block's end")):
            conversation.end()
        peer.session.close()


# Blocks of values, and of the bytes of a codec.


async def run_value(block: Block) -> None:
    for line in block.lines:
        with at(line):
            value, arrow, text = split(line, "<->", "->", "<-")
            if arrow != "<-":
                check_written(value, text)
            if arrow != "->":
                check_read(value, text)


def check_written(value: str, text: str) -> None:
    try:
        written = serialize(eval(value, CLASSES))
    except TypeError as error:
        written = f"{type(error).__name__}: {error}"
    if ERROR.fullmatch(written) or ERROR.fullmatch(text):
        agree(written, text)
    else:
        agree(json.loads(written), json.loads(text))


def check_read(value: str, text: str) -> None:
    try:
        read = repr(deserialize(text))
    except capnweb_py.RpcError as error:
        read = f"{type(error).__name__}: {error}"
    said = value if ERROR.fullmatch(value) else repr(eval(value, CLASSES))
    assert read == said, f"it is {read}"


async def run_cbor(block: Block) -> None:
    data = b""
    for line in block.lines:
        with at(line):
            if not re.search("<->|->|<-", line.text):
                data += bytes.fromhex(line.text.partition("#")[0])
                continue
            form, arrow, tree = split(line, "<->", "->", "<-")
            text = form.startswith("[")
            data = form.encode() if text else data + bytes.fromhex(form)
            check_codec(data, not text, arrow, tree)
            data = b""
    assert not data, f"protocol.md:{block.number}: bytes at the end stand for nothing"


def check_codec(data: bytes, binary: bool, arrow: str, tree: str) -> None:
    if ERROR.fullmatch(tree):
        session = RpcSession(Peer(), codec=CBOR)
        session.receive(data, binary)
        agree(f"{type(session.end).__name__}: {session.end}", tree)
        return
    if arrow != "->":
        agree(CBOR.encode(ast.literal_eval(tree)), (data, binary))
    if arrow != "<-":
        agree(CBOR.decode(data, binary), ast.literal_eval(tree))


async def run_level(block: Block) -> None:
    for line in block.lines:
        with at(line):
            level, _, rest = line.text.partition(": ")
            value, arrow, tree = split(attrs.evolve(line, text=rest), "<->", "->", "<-")
            if arrow != "<-":
                written = SERIALIZERS[level](NO_SESSION, Limits()).write(eval(value, CLASSES))
                agree(written, eval(tree, CLASSES))
            if arrow != "->":
                try:
                    read = repr(DESERIALIZERS[level](NO_SESSION, Limits()).read(eval(tree, CLASSES)).value)
                except capnweb_py.RpcError as error:
                    read = f"{type(error).__name__}: {error}"
                said = value if ERROR.fullmatch(value) else repr(eval(value, CLASSES))
                assert read == said, f"it is {read}"


# Blocks about connections.


async def run_framing(block: Block) -> None:
    for line in block.lines:
        with at(line):
            name, _, rest = line.text.partition(": ")
            octets, arrow, said = split(attrs.evolve(line, text=rest), "<->", "->")
            messages: list[Message] = []
            framing = framing_named(name, Limits().max_message_size, JSON)
            framing.feed(bytes.fromhex(octets))
            try:
                while (message := framing.next()) is not None:
                    messages.append(message)
            except capnweb_py.RpcError as error:
                agree(f"{type(error).__name__}: {error}", said)
                continue
            assert not framing.within, "the bytes end inside a message"
            agree(
                ", ".join(f"binary {data.hex()}" if binary else f"text {data.decode()}" for data, binary in messages),
                said,
            )
            if arrow == "<->":
                agree(framing.write(messages).hex(), bytes.fromhex(octets).hex())


async def run_subprotocols(block: Block) -> None:
    for line in block.lines:
        with at(line):
            left, arrow, right = split(line, "offers", "->")
            if arrow == "offers":
                choice = ast.literal_eval(left)
                offers = subprotocols_for(None if choice is None else chosen_codec(choice))
                agree([str(name) for name in offers], names_in(right))
            else:
                agree(await chosen_of(names_in(left)) or "nothing", right)


def names_in(text: str) -> list[str]:
    return [] if text == "nothing" else text.split(", ")


async def chosen_of(offered: list[str]) -> str | None:
    """What a server chooses, of these offers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await serve_websocket(None, scope, receive, send)

    async with wired(app, websocket_scope() | {"subprotocols": offered}) as wire:
        await wire.to_app.send({"type": "websocket.connect"})
        chosen: str | None = (await wire.next())["subprotocol"]
        await hang_up(wire)
        return chosen


async def hang_up(wire: Wire) -> None:
    """End the connection of a WebSocket, and wait until the application has."""
    await wire.to_app.send({"type": "websocket.disconnect", "code": 1000, "reason": ""})
    await wire.ended.wait()


async def run_close(block: Block) -> None:
    for line in block.lines:
        with at(line):
            ending, _, said = split(line, "->")
            session = Peer().session
            eval(ending, CLASSES | {"session": session})
            code, reason = close_reason(session)
            agree(f"{code} {reason}".rstrip(), said)


# Blocks about HTTP batches.


async def run_batch(block: Block) -> None:
    """One batch: of the program on our side, where there are lines of it, or else of the peer."""
    program = [line for line in block.lines if line.text[0] in "$="]
    said, heard = ([line.text[2:] for line in block.lines if line.text[0] == mark] for mark in "><")
    options = SessionOptions(limits=Limits(**block.settings))
    body = "\n".join(said).encode()
    with at(Line(block.number, "the batch")):
        assert {line.text[0] for line in block.lines} <= set("><$="), "a line begins with one of > < $ ="
        if program:
            sent = await batch_of(program, body, options)
        else:
            sent = await http_batch_response(body, CLASSES["Api"], options)
        agree([json.loads(line) for line in sent.splitlines()], [json.loads(line) for line in heard])


async def batch_of(program: Sequence[Line], answer: bytes, options: SessionOptions) -> bytes:
    """What is sent while a program makes one batch, which gets this answer."""
    bodies: list[bytes] = []

    async def respond(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.content)
        return httpx2.Response(200, content=answer)

    async with (
        httpx2.AsyncClient(transport=httpx2.MockTransport(respond)) as client,
        http_batch("http://server/", options=options, client=client) as remote,
    ):
        names = CLASSES | {"remote": remote}
        for line in program:
            with at(line):
                await take_step(line, names)
    [body] = bodies
    return body


async def take_step(line: Line, names: dict[str, Any]) -> None:
    """Run one line of a program, or check what it says."""
    if line.text[0] == "=":
        assert eval(line.text[2:], names), "it is not so"
        names.pop("error", None)
        return
    assert "error" not in names, f"nothing has looked at the error {names['error']!r}"
    code = compile(line.text[2:], line.text, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    try:
        running = eval(code, names)
        if inspect.iscoroutine(running):
            await running
    except capnweb_py.RpcError as error:
        names["error"] = error


async def run_asgi(block: Block) -> None:
    with at(Line(block.number, "the exchange")):
        exchange = Exchange.of(block)
        app = asgi_app(CLASSES["Api"], allowed_origins=["https://app.example"])
        check_reply(await fetch(app, scope_of(exchange), bytes_of(exchange)), exchange)


# Blocks about the proxy.

PICTURE = re.compile(r"<an? (\w+) of (\d+) x (\d+) pixels>")


@attrs.frozen
class Exchange:
    """An HTTP request and its response, as a block shows them: first lines, headers, bodies."""

    request: tuple[str, list[tuple[str, str]], list[str]]
    response: tuple[str, list[tuple[str, str]], list[str]]

    @classmethod
    def of(cls, block: Block) -> Exchange:
        marks = {line.text[:1] for line in block.lines}
        assert marks == {">", "<"}, f"the lines of a request begin with >, those of a response with <, and not {marks}"
        return cls(*(_message([line.text[2:] for line in block.lines if line.text[0] == mark]) for mark in "><"))


def _message(lines: list[str]) -> tuple[str, list[tuple[str, str]], list[str]]:
    first, *rest = lines
    end = rest.index("") if "" in rest else len(rest)
    pairs = (line.partition(": ") for line in rest[:end])
    return first, [(name.lower(), value) for name, _, value in pairs], rest[end + 1 :]


def scope_of(exchange: Exchange) -> dict[str, Any]:
    """The scope of the request, as an ASGI server makes it."""
    first, headers, body = exchange.request
    method, target, version = first.replace("<secret>", SECRET).split(" ")
    path, _, query = target.partition("?")
    assert version == "HTTP/1.1"
    if body:
        headers.append(("content-length", str(len(bytes_of(exchange)))))
    names = dict(headers)
    return websocket_scope(query, path=path, headers=headers) | {
        "type": "websocket" if names.get("upgrade") == "websocket" else "http",
        "method": method,
        "subprotocols": names.get("sec-websocket-protocol", "").split(", "),
    }


def bytes_of(exchange: Exchange) -> bytes:
    """The body of the request, with the pictures that it tells of."""
    _, headers, body = exchange.request
    form = dict(headers).get("mf-header-content-type", "").startswith("multipart/form-data")
    lines = [png(*found.groups()) if (found := PICTURE.fullmatch(line)) else line.encode() for line in body]
    return b"\r\n".join([*lines, b""]) if form else b"\n".join(lines)


def png_of(exchange: Exchange) -> bytes:
    """The first picture in the request; empty if there is none."""
    found = next(filter(None, map(PICTURE.fullmatch, exchange.request[2])), None)
    return b"" if found is None else png(*found.groups())


def png(kind: str, width: str, height: str) -> bytes:
    assert kind == "PNG", "pictures are sent as PNG"
    data: bytes = pyvips.Image.black(int(width), int(height), bands=3).pngsave_buffer()
    return data


async def run_http(block: Block) -> None:
    with at(Line(block.number, "the exchange")):
        exchange = Exchange.of(block)
        scope = scope_of(exchange)
        async with proxy_of_document() as app:
            if exchange.response[0].startswith("HTTP/1.1 101"):
                await check_upgrade(app, scope, exchange)
            else:
                check_reply(await fetch(app, scope, bytes_of(exchange)), exchange)


def proxy_of_document() -> Any:
    """The proxy that the document describes."""
    return proxy(
        GREETER=RpcService("greeter:Greeter", CLASSES["Greeter"]),
        IMAGES=Declaration("images", opener(ImagesService(FileImageStore(Path("/dev/null/images"))))),
        LEGACY=open_legacy,
        TENANTS=Declaration("dispatch_namespace", open_tenants),
    )


async def open_legacy(tasks: TaskGroup) -> Upstream:
    """The document's binding that speaks HTTP only."""
    return Upstream("http://127.0.0.1:1/", tasks)


async def open_tenants(tasks: TaskGroup) -> DispatchNamespace:
    """The document's binding that holds many services."""
    factory = Factory("greeter:Greeter", CLASSES["Greeter"], {}, dispatched=True)
    namespace = DispatchNamespace()
    await namespace.add("greeter", opener(RpcService("greeter:Greeter", factory)), tasks)
    return namespace


def check_reply(reply: Reply, exchange: Exchange) -> None:
    first, headers, body = exchange.response
    agree(f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}", first)
    for name, value in headers:
        agree((name, reply.header(name)), (name, value))
    check_body(reply.body, "\n".join(body).replace("<the length of the PNG>", str(len(png_of(exchange)))))


def check_body(found: bytes, said: str) -> None:
    picture = PICTURE.fullmatch(said)
    if picture is None:
        cut = said.removesuffix("...")
        agree(found.decode() if cut == said else found.decode()[: len(cut)], cut)
        return
    image = pyvips.Image.new_from_buffer(found, "")
    kind = {"webpload_buffer": "WebP", "pngload_buffer": "PNG"}[image.get("vips-loader")]
    agree((kind, str(image.width), str(image.height)), picture.groups())


async def check_upgrade(app: ProxyApp, scope: dict[str, Any], exchange: Exchange) -> None:
    """The response is a WebSocket. Below it may stand how the server closes it at once."""
    first, headers, after = exchange.response
    agree(first, f"HTTP/1.1 101 {HTTPStatus(101).phrase}")
    async with wired(app, scope) as wire:
        await wire.to_app.send({"type": "websocket.connect"})
        accepted = await wire.next()
        agree(accepted["type"], "websocket.accept")
        agree(accepted.get("subprotocol"), dict(headers).get("sec-websocket-protocol"))
        for line in after:
            closing = await wire.next()
            agree(f"close {closing['code']} {closing['reason']}", line)
        if not after:
            await hang_up(wire)


async def run_control(block: Block) -> None:
    answers: list[str] = []
    url = "http://127.0.0.1:8787/<secret>/"
    async with proxy() as app:
        for line in block.lines:
            with at(line):
                text = line.text[2:]
                if line.text.startswith("> "):
                    await obey(one_line(text), app, url, answers.append)
                else:
                    assert line.text.startswith("< "), "a line begins with > or <"
                    agree(json.loads(answers.pop(0)), json.loads(text))
    assert not answers, f"protocol.md:{block.number}: the server also answers {answers}"


async def one_line(text: str) -> AsyncIterator[bytes]:
    yield text.encode() + b"\n"


RUNNERS: dict[str, Callable[[Block], Awaitable[None]]] = {
    "python": run_python,
    "wire": run_wire,
    "value": run_value,
    "cbor": run_cbor,
    "level": run_level,
    "framing": run_framing,
    "subprotocols": run_subprotocols,
    "close": run_close,
    "batch": run_batch,
    "asgi": run_asgi,
    "http": run_http,
    "control": run_control,
}

TEXT = DOCUMENT.read_text(encoding="utf-8")
BLOCKS = blocks_of(TEXT)
CLASSES = classes_of(BLOCKS)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.kind}-line-{block.number}")
async def test_a_block_is_true(block: Block) -> None:
    assert block.kind in RUNNERS, f"protocol.md:{block.number}: nothing runs a block of the kind {block.kind!r}"
    assert block.lines, f"protocol.md:{block.number}: the block is empty"
    try:
        await RUNNERS[block.kind](block)
    except ExceptionGroup as group:
        raise first_of(group) from None


def test_no_part_of_the_document_has_lost_its_examples() -> None:
    counts = Counter(block.kind for block in BLOCKS)
    assert not {kind: (counts[kind], floor) for kind, floor in FLOORS.items() if counts[kind] < floor}
    assert FLOORS.keys() == RUNNERS.keys()


def table_under(header: str) -> dict[str, list[str]]:
    """The rows of the table with this header, without the header: the cells behind the first one, by the first."""
    after = TEXT.split(f"\n{header} ", 1)[1].splitlines()[2:]
    rows = [line.strip("| ").split(" | ") for line in after[: after.index("")]]
    return {first.strip("`"): rest for first, *rest in rows}


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


def test_the_table_of_limits_has_all_with_their_defaults() -> None:
    said = {name: number(cells[0]) for name, cells in table_under("| limit |").items()}
    assert said == attrs.asdict(Limits())


def test_the_table_of_timeouts_has_the_defaults() -> None:
    said = {name: number(cells[0]) for name, cells in table_under("| setting |").items()}
    for function in (open_session, serve):
        parameters = inspect.signature(function).parameters
        assert said == {name: parameters[name].default for name in said}
    assert len(said) == 3


def test_the_table_of_caps_is_that_of_the_images_binding() -> None:
    caps = [MAX_IMAGE_BYTES, MAX_HOSTED_BYTES, MAX_FIELD_BYTES, MAX_FORM_BYTES, MAX_PARTS, MAX_SOURCES, MAX_OPERATIONS]
    assert [number(cells[0]) for cells in table_under("| cap |").values()] == caps


def test_every_link_leads_to_a_section() -> None:
    titles = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ ([\w ]+)$", TEXT, re.MULTILINE)}
    links = set(re.findall(r"\]\(#([^)]*)\)", TEXT))
    assert links
    assert links <= titles


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("wire", '> ["stream", 1]\n< ["resolve", 1, 2]'),
        ("wire", '> ["stream", 1]\n< ["resolve", 1, 1.0]'),
        ("wire", '< ["resolve", 1, 1]'),
        ("wire", '> ["stream", 1]'),
        ("wire", "= imports == 2"),
        ("wire", "$ nothing.here"),
        ("wire", '$ await remote.f()\n< ["stream", ["pipeline", 0, ["f"], []]]\n> ["reject", 1, "unseen"]'),
        ("wire", "? what"),
        ("wire max_depth=1", '> ["stream", [[[[]]]]]\n< ["resolve", 1, [[[[]]]]]'),
        ("value", "1 <-> 1.0"),
        ("value", "1 <- true"),
        ("value", "object() <-> {}"),
        ("value", 'TypeError: no -> "text"'),
        ("value", "nothing"),
        ("cbor", "82 01 02 <-> [1, 2]"),
        ("cbor", "82 01 02 -> [1, 3]"),
        ("cbor", "82 01 02"),
        ("cbor", "f6 -> ProtocolError: no"),
        ("level", "structuredClonable: UNDEFINED -> ['undefined']"),
        ("level", "jsonCompatible: b'a' <- ['bytes', 'YQ', 'Int8Array']"),
        ("framing", "length: 01 00000001 30 -> text 1"),
        ("framing", "length: 01 00000001 -> text 1"),
        ("framing", "newline: 31 0d0a <-> text 1\r"),
        ("subprotocols", "capnweb.json -> capnweb.cbor"),
        ("subprotocols", "None offers nothing"),
        ("close", "session.close() -> 3000"),
        ("batch", '> ["stream", 1]'),
        ("batch", '> ["stream", 1]\n< ["resolve", 1, 2]'),
        ("batch", '? ["stream", 1]'),
        ("batch", '$ await remote.hello("you")\n< ["stream", ["pipeline", 0, ["hello"], ["me"]]]\n> ["resolve", 1, 1]'),
        ("batch", "$ promise = remote.hello()\n$ await promise\n$ unseen = 1"),
        ("batch", "$ await remote.hello()\n= error is None"),
        ("asgi", "> GET / HTTP/1.1\n< HTTP/1.1 200 OK"),
        ("http", "> GET /<secret>/ HTTP/1.1\n< HTTP/1.1 200 OK"),
        ("http", "> GET /<secret>/ HTTP/1.1\n< HTTP/1.1 400 Bad Request\n<\n< other"),
        ("control", '> {}\n< {"url": "elsewhere"}'),
        ("control", "> {}"),
    ],
)
async def test_an_example_that_is_wrong_is_found_with_its_line(kind: str, wrong: str) -> None:
    (block,) = blocks_of(f"Text.\n\n```{kind}\n{wrong}\n```\n")
    with pytest.raises((AssertionError, ExceptionGroup)) as caught:
        await RUNNERS[block.kind](block)
    assert re.match(r"protocol\.md:[3-6]: ", str(first_of(caught.value)))


def test_a_block_that_is_not_closed_is_found() -> None:
    with pytest.raises(AssertionError, match="the last block is not closed"):
        blocks_of("```wire\n")
