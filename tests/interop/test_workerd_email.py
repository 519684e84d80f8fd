"""Email of a real workerd: one script with our proxy behind its bindings, and with Miniflare's own simulator, compared.

What arrives is read from the files of our proxy. The simulator checks less of a message's parts than Cloudflare
documents: what it lets pass is tested without it (test_send_email.py).
"""

from __future__ import annotations

import email
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, Final

import pytest
from proxying import serving

from capnweb_py.bindings import send_email
from capnweb_py.remote import connect_env

from .runtime import Worker, cloudflare_proxy, workerd

SCRIPT: Final = "email_worker.mjs"
ADA: Final = "ada@example.com"
BOB: Final = "bob@example.org"
EVE: Final = "eve@example.net"
HEAD: Final = f"From: Ada <{ADA}>\r\nTo: {BOB}\r\nMessage-ID: <1@example.com>\r\n"
RAW: Final = HEAD + "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nHello\r\n"
PARTS: Final[dict[str, Any]] = {"from": ADA, "to": BOB, "subject": "Grüße", "text": "Hello"}

# What the bindings allow, here and in the simulator.
ALLOWED: Final[dict[str, dict[str, Any]]] = {
    "EMAIL": {},
    "LISTED": {"allowed_destination_addresses": [BOB], "allowed_sender_addresses": [ADA]},
    "SINGLE": {"destination_address": BOB},
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where our proxy has its configuration, and puts messages."""
    made: Path = tmp_path_factory.mktemp("email")
    lines = []
    for name, keys in ALLOWED.items():
        lines += [f"[bindings.{name}]", 'type = "send_email"', 'store = "file:///mail"']
        lines += [f"{key} = {value!r}".replace("'", '"') for key, value in keys.items()]
    (made / "capnweb.toml").write_text("\n".join(lines))
    return made


@pytest.fixture(scope="module")
def ours(node: str, directory: Path) -> Iterator[Worker]:
    with serving(directory / "capnweb.toml") as server:
        remote = [{"name": name, "remoteProxyConnectionString": server.url} for name in ALLOWED]
        with workerd(node, SCRIPT, email={"send_email": remote}) as worker:
            yield worker


@pytest.fixture(scope="module")
def simulated(node: str) -> Iterator[Worker]:
    local = [{"name": name, **keys} for name, keys in ALLOWED.items()]
    with workerd(node, SCRIPT, email={"send_email": local}) as worker:
        yield worker


@pytest.fixture
def mail(directory: Path) -> Iterator[Path]:
    """The folder of messages, which is empty before and after a test."""
    folder = directory / ".capnweb" / "mail"
    yield folder
    for file in folder.glob("*.eml"):
        file.unlink()


def read_one(folder: Path) -> EmailMessage:
    (file,) = folder.glob("*.eml")
    message = email.message_from_bytes(file.read_bytes(), policy=default)
    assert isinstance(message, EmailMessage)
    return message


# Messages that both take, and those that both refuse, with the same text.
SAME: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "raw": ("sendRaw", {"from": ADA, "to": BOB, "raw": RAW}),
    "raw, streamed": ("sendRaw", {"from": ADA, "to": BOB, "raw": RAW, "streamed": True}),
    "raw, folded": ("sendRaw", {"from": ADA, "to": BOB, "raw": "Subject: a\r\n b\r\n" + RAW}),
    "raw, lines of Unix": ("sendRaw", {"from": ADA, "to": BOB, "raw": RAW.replace("\r\n", "\n")}),
    "raw, to an address on the list": ("sendRaw", {"binding": "LISTED", "from": ADA, "to": BOB, "raw": RAW}),
    "raw, to the address": ("sendRaw", {"binding": "SINGLE", "from": ADA, "to": BOB, "raw": RAW}),
    "raw, to an address not on the list": ("sendRaw", {"binding": "LISTED", "from": ADA, "to": EVE, "raw": RAW}),
    "raw, from an address not on the list": ("sendRaw", {"binding": "LISTED", "from": EVE, "to": BOB, "raw": RAW}),
    "raw, to another address": ("sendRaw", {"binding": "SINGLE", "from": ADA, "to": EVE, "raw": RAW}),
    "raw, the sender first": ("sendRaw", {"binding": "LISTED", "from": EVE, "to": EVE, "raw": RAW}),
    "raw, without a message id": ("sendRaw", {"from": ADA, "to": BOB, "raw": f"From: {ADA}\r\n\r\nHello"}),
    "raw, of somebody else": ("sendRaw", {"from": EVE, "to": BOB, "raw": RAW}),
    "raw, received before": ("sendRaw", {"from": ADA, "to": BOB, "raw": "Received: from there\r\n" + RAW}),
    "parts": ("sendParts", {"parts": PARTS}),
    "parts, of names": (
        "sendParts",
        {"parts": {**PARTS, "from": {"email": ADA, "name": "Ada L."}, "to": [{"email": BOB, "name": "Böb"}, EVE]}},
    ),
    "parts, to addresses on the list": ("sendParts", {"binding": "LISTED", "parts": {**PARTS, "to": [BOB]}}),
    "parts, to an address not on the list": ("sendParts", {"binding": "LISTED", "parts": {**PARTS, "to": [BOB, EVE]}}),
    "parts, from an address not on the list": (
        "sendParts",
        {"binding": "LISTED", "parts": {**PARTS, "from": {"email": EVE, "name": "Ada"}}},
    ),
    "parts, to another address": ("sendParts", {"binding": "SINGLE", "parts": {**PARTS, "to": EVE}}),
    "attachments": ("sendBytes", {"parts": PARTS, "bytes": [0, 255]}),
}


@pytest.mark.parametrize("case", SAME)
@pytest.mark.usefixtures("mail")
def test_the_runtime_sees_no_difference(ours: Worker, simulated: Worker, case: str) -> None:
    scenario, arguments = SAME[case]
    assert ours.attempt(scenario, **arguments) == simulated.attempt(scenario, **arguments)


def test_a_raw_message_arrives_as_it_was(ours: Worker, mail: Path) -> None:
    ours.run("sendRaw", **{"from": ADA, "to": BOB, "raw": RAW, "streamed": True})
    (file,) = mail.glob("*.eml")
    assert file.read_bytes() == f"Return-Path: <{ADA}>\r\nDelivered-To: {BOB}\r\n{RAW}".encode()


def test_parts_arrive_as_one_message(ours: Worker, mail: Path) -> None:
    inline = {"disposition": "inline", "filename": "a.png", "type": "image/png", "contentId": "pic", "content": "AAH/"}
    parts = {
        **PARTS,
        "from": {"email": ADA, "name": "Ada L."},
        "cc": [EVE],
        "bcc": {"email": "hidden@example.com", "name": "H"},
        "replyTo": EVE,
        "html": '<img src="cid:pic">',
        "headers": {"x-campaign": "c", "list-unsubscribe": "<https://example.com/u>"},
        "attachments": [inline],
    }
    assert ours.run("sendParts", parts=parts) == "<...@example.com>"
    message = read_one(mail)
    assert message["From"] == '"Ada L." <ada@example.com>'
    assert (message["To"], message["Cc"], message["Bcc"], message["Reply-To"]) == (BOB, EVE, None, EVE)
    assert (message["Subject"], message["x-campaign"]) == ("Grüße", "c")
    assert ("List-Unsubscribe", "<https://example.com/u>") in message.items()
    assert message.get_all("Delivered-To") == [BOB, EVE, "hidden@example.com"]
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert (text.get_content(), html.get_content()) == ("Hello\r\n", '<img src="cid:pic">\r\n')
    picture = next(part for part in message.walk() if part.get_content_type() == "image/png")
    assert (picture.get_content(), picture["Content-ID"]) == (b"\x00\x01\xff", "<pic>")


def test_an_attachment_of_bytes_arrives(ours: Worker, mail: Path) -> None:
    ours.run("sendBytes", parts=PARTS, bytes=[0, 255, 13, 10])
    attachments = {part.get_filename(): part.get_content() for part in read_one(mail).iter_attachments()}
    assert attachments == {"a.bin": b"\x00\xff\r\n"}


@pytest.mark.parametrize("nobody", [{"to": None}, {}], ids=["null", "undefined"])
@pytest.mark.parametrize("form", ["sendRaw", "sendParts"])
def test_what_is_to_nobody_goes_to_the_bindings_one_address(
    ours: Worker, mail: Path, form: str, nobody: dict[str, None]
) -> None:
    """As Cloudflare's page "Send bindings" says; the simulator refuses it."""
    parts = {name: value for name, value in PARTS.items() if name != "to"} | nobody
    given = {"from": ADA, "raw": RAW, **nobody} if form == "sendRaw" else {"parts": parts}
    ours.run(form, binding="SINGLE", **given)
    assert read_one(mail)["Delivered-To"] == BOB


def test_an_array_buffer_does_not_pass_miniflares_client(ours: Worker) -> None:
    # The capnweb that it bundles (0.5.0) has no expression for one: the call never leaves workerd.
    answer = ours.attempt("sendBytes", parts=PARTS, bytes=[1], buffer=True)
    assert answer == {"thrown": {"name": "TypeError", "message": "Cannot serialize value: [object ArrayBuffer]"}}


# What our proxy says in other words, or sees and the simulator does not.
DIFFERENT: Final[dict[str, tuple[dict[str, Any], str, str | None]]] = {
    # The simulator fails at reading `address` of what is not there.
    "no author": (
        {"raw": "Message-ID: <1@x>\r\n\r\nHello"},
        "From: header does not match mail from",
        "Cannot read properties of undefined (reading 'address')",
    ),
    # One that is allowed, and one that a reader sees: the simulator looks at one of them.
    "two authors": ({"raw": f"From: {EVE}\r\n{RAW}"}, "From: header does not match mail from", None),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_where_the_simulator_is_wrong(ours: Worker, simulated: Worker, case: str) -> None:
    arguments, text, simulators = DIFFERENT[case]
    arguments = {"from": ADA, "to": BOB, **arguments}
    assert ours.attempt("sendRaw", **arguments) == {"thrown": {"name": "Error", "message": text}}
    answer = simulated.attempt("sendRaw", **arguments)
    assert (
        answer == {"result": "<...@example.com>"} if simulators is None else answer["thrown"]["message"] == simulators
    )


# Cloudflare's proxy worker, with the simulator behind its binding.


@pytest.fixture(scope="module")
def cloudflare(node: str) -> Iterator[str]:
    local = [{"name": name, **keys} for name, keys in ALLOWED.items()]
    with cloudflare_proxy(node, email={"send_email": local}) as url:
        yield url


@pytest.mark.anyio
async def test_the_facade_sends_through_cloudflares_proxy(cloudflare: str) -> None:
    async with connect_env(cloudflare, bindings={"EMAIL": "send_email", "LISTED": "send_email"}) as env:
        for raw in (RAW, RAW.encode()):
            message_id = await env.EMAIL.send(send_email.EmailMessage(ADA, BOB, raw))
            assert message_id.endswith("@example.com>")
        await env.LISTED.send(
            from_=send_email.EmailAddress(ADA, "Ada"),
            to=[BOB],
            subject="Hi",
            text="Hello",
            attachments=[send_email.Attachment("a.txt", "text/plain", b"\0")],
        )
        with pytest.raises(send_email.EmailError, match=f"^email to {EVE} not allowed$"):
            await env.LISTED.send(from_=ADA, to=EVE, subject="Hi")
