"""The send_email binding and its facade: what a message may say, and where it goes, with a real SMTP server."""

from __future__ import annotations

import email
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.message import EmailMessage as ParsedMessage
from email.policy import default
from pathlib import Path
from typing import Any, Final, cast

import anyio
import pytest
import trustme
from documents import DOCUMENTS, run_examples
from mail_server import mail_server
from proxying import fetch, http_scope, proxy, serving

from capnweb_py import UNDEFINED, RemoteError, memory_pair
from capnweb_py.bindings.channels import Channels, ProxyAddress
from capnweb_py.bindings.send_email import Attachment, EmailAddress, EmailError, EmailMessage, SendEmail
from capnweb_py.remote import connect_env
from capnweb_py.web import ReadableStream
from proxy_server.bindings import Binding, parse_binding
from proxy_server.stores.mail import Mail
from proxy_server.stores.mail_files import MailFiles
from proxy_server.stores.mail_smtp import parse_smtp_url
from proxy_server.tables import ConfigError, Table

pytestmark = pytest.mark.anyio

ADA: Final = "ada@example.com"
BOB: Final = "bob@example.org"
EVE: Final = "eve@example.net"
HEAD: Final = f"From: {ADA}\r\nMessage-ID: <1@example.com>\r\n"
RAW: Final = f"{HEAD}Subject: Hi\r\n\r\nHello\r\n"
FINE: Final[dict[str, Any]] = {"from_": ADA, "to": BOB, "subject": "Hi", "text": "Hello"}


@asynccontextmanager
async def opened(directory: Path, **table: Any) -> AsyncIterator[SendEmail]:
    """The facade of a binding with this table, in one process with it."""
    source = Table({"type": "send_email", **table}, directory / "capnweb.toml", "bindings.EMAIL")
    async with anyio.create_task_group() as tasks:
        binding: Binding = await parse_binding(source, directory).open(tasks)
        async with memory_pair(None, binding.rpc_main()) as (client, _):
            main = client.remote_main
            yield SendEmail(Channels("EMAIL", ProxyAddress("http://unused/"), cast(Any, None), lambda: main))
        await binding.aclose()


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[SendEmail]:
    async with opened(tmp_path) as facade:
        yield facade


def files(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((directory / "email-EMAIL").glob("*"))]


def only(directory: Path) -> ParsedMessage:
    (content,) = files(directory)
    message = email.message_from_bytes(content, policy=default)
    assert isinstance(message, ParsedMessage)
    return message


# Messages of parts


async def test_a_message_has_its_parts_and_the_id_that_is_returned(outbox: SendEmail, tmp_path: Path) -> None:
    message_id = await outbox.send(**FINE)
    message = only(tmp_path)
    assert (message["From"], message["To"], message["Subject"]) == (ADA, BOB, "Hi")
    assert message["Message-ID"] == message_id
    assert message["Date"].datetime.tzinfo is not None
    assert message.get_content() == "Hello\r\n"


async def test_recipients_are_all_of_to_cc_and_bcc(outbox: SendEmail, tmp_path: Path) -> None:
    await outbox.send(from_=EmailAddress(ADA, "Ada, Countess"), cc=[EVE], bcc=EmailAddress(BOB, "B"), subject="Hi")
    message = only(tmp_path)
    assert message.get_all("Delivered-To") == [EVE, BOB]
    assert (message["From"], message["To"], message["Cc"], message["Bcc"]) == (
        f'"Ada, Countess" <{ADA}>',
        None,
        EVE,
        None,
    )


async def test_text_html_and_attachments_are_parts(outbox: SendEmail, tmp_path: Path) -> None:
    picture = Attachment("p.png", "image/png", b"\0\xff", "inline", "pic")
    report = Attachment("Zahlen für März.csv", "text/csv", "ä;1\r\n".encode())
    await outbox.send(**FINE, html='<img src="cid:pic">', attachments=[picture, report])
    message = only(tmp_path)
    parts = [part.get_content_type() for part in message.walk() if not part.is_multipart()]
    assert parts == ["text/plain", "text/html", "image/png", "text/csv"]
    (attached,) = message.iter_attachments()
    assert (attached.get_filename(), attached.get_payload(decode=True)) == (report.filename, report.content)


async def test_html_alone_has_no_empty_text_beside_it(outbox: SendEmail, tmp_path: Path) -> None:
    await outbox.send(from_=ADA, to=BOB, subject="Hi", html="<p>")
    assert only(tmp_path).get_content_type() == "text/html"


async def test_everything_travels_as_ascii_or_is_encoded(outbox: SendEmail, tmp_path: Path) -> None:
    await outbox.send(
        from_=EmailAddress(ADA, "Ädä"),
        to=BOB,
        subject="Grüße " * 100,
        text="ü" * 2000 + "\ud800",
        headers={"X-Name": "Jürgen", "References": " ".join(f"<{'x' * 60}{n}@example.com>" for n in range(20))},
    )
    (content,) = files(tmp_path)
    assert all(len(line) <= 998 for line in content.split(b"\r\n"))
    head = content.partition(b"\r\n\r\n")[0]
    assert head.isascii()
    assert b"References: <xxxx" in head
    message = only(tmp_path)
    assert (message["From"].addresses[0].display_name, message["X-Name"]) == ("Ädä", "Jürgen")
    assert str(message["Subject"]) == ("Grüße " * 100)
    assert message.get_content() == "ü" * 2000 + "\ufffd\r\n"


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"from_": None}, "E_FIELD_MISSING", "the field 'from' is missing"),
        ({"subject": None}, "E_FIELD_MISSING", "the field 'subject' is missing"),
        ({"to": None}, "E_FIELD_MISSING", "the field 'to' is missing"),
        ({"to": []}, "E_FIELD_MISSING", "the field 'to' is missing"),
        ({"to": [BOB] * 51}, "E_TOO_MANY_RECIPIENTS", "51 recipients provided, maximum is 50"),
        ({"cc": [BOB] * 25, "bcc": [BOB] * 25}, "E_TOO_MANY_RECIPIENTS", "51 recipients provided, maximum is 50"),
        ({"to": "bob"}, "E_VALIDATION_ERROR", "to is no email address: 'bob'"),
        ({"cc": "a b@example.org"}, "E_VALIDATION_ERROR", "cc is no email address"),
        ({"bcc": f"{'x' * 65}@example.org"}, "E_VALIDATION_ERROR", "bcc is no email address"),
        ({"reply_to": "Bob <bob>"}, "E_VALIDATION_ERROR", "replyTo is no email address: 'bob'"),
        ({"to": f"Bob <{BOB}>, Eve <{EVE}>"}, "E_VALIDATION_ERROR", "to is no email address"),
        ({"to": f'"Bo"b" <{BOB}>'}, "E_VALIDATION_ERROR", "to is no email address"),
        ({"to": f"Bob\nX: <{BOB}>"}, "E_VALIDATION_ERROR", "the name in to has characters that are not allowed"),
        ({"subject": "x" * 999}, "E_VALIDATION_ERROR", "subject has more than 998 characters"),
        ({"text": "x" * (5 * 1024 * 1024)}, "E_CONTENT_TOO_LARGE", "the message has more than 5242880 bytes"),
    ],
)
async def test_a_part_that_is_not_valid(
    outbox: SendEmail, tmp_path: Path, change: dict[str, Any], code: str, text: str
) -> None:
    with pytest.raises(EmailError) as caught:
        await outbox.send(**{**FINE, **change})
    assert (caught.value.code, str(caught.value)[: len(text)]) == (code, text)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"type": "image"}, "the type of an attachment is no media type that one has: 'image'"),
        ({"type": "text/html; charset=x"}, "the type of an attachment is no media type"),
        ({"type": "message/rfc822"}, "the type of an attachment is no media type"),
        ({"type": "text/plain\r\nX-Evil: 1"}, "the type of an attachment is no media type"),
        ({"filename": "a\r\nX-Evil: 1"}, "the filename of an attachment has characters that are not allowed"),
        ({"filename": "x" * 256}, "the filename of an attachment has more than 255 characters"),
        ({"disposition": "form-data"}, "the disposition of an attachment is 'attachment' or 'inline'"),
        ({"disposition": "inline"}, "the field 'contentId' of an inline attachment is missing"),
        ({"content_id": "a>\r\nX-Evil: 1"}, "the contentId of an attachment is printable ASCII"),
        ({"content": "no base64!"}, "the content of an attachment is a text that is no base64"),
        ({"content": b"x" * (4 * 1024 * 1024)}, "the message has more than 5242880 bytes"),
        ({"content": b"x" * (6 * 1024 * 1024)}, "the message has more than 5242880 bytes"),
    ],
)
async def test_an_attachment_that_is_not_valid(
    outbox: SendEmail, tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    attachment = Attachment(**{"filename": "a", "type": "text/plain", "content": b"x", **change})
    with pytest.raises(EmailError) as caught:
        await outbox.send(**FINE, attachments=[attachment])
    assert str(caught.value)[: len(text)] == text
    assert files(tmp_path) == []


ATTACHED: Final = {"filename": "a", "type": "text/plain", "disposition": "attachment"}


async def test_what_no_python_program_would_send_is_refused(outbox: SendEmail) -> None:
    for message, text in (
        ({"from": ADA, "to": BOB, "subject": "Hi", "sender": EVE}, "'sender' is no part of a message"),
        ({"from": ADA, "to": BOB, "subject": "Hi", "attachments": "x"}, "attachments is no array"),
        ({"from": ADA, "to": BOB, "subject": "Hi", "attachments": ["x"]}, "an attachment is no object"),
        ({"from": ADA, "to": BOB, "subject": "Hi", "headers": "x"}, "headers is no object of names and values"),
        ({"from": [ADA], "to": BOB, "subject": "Hi"}, "from is no email address"),
        ({"from": 5, "to": BOB, "subject": "Hi", "text": "Hi"}, "from is no email address: 5"),
        ({"from": ADA, "to": BOB, "subject": "Hi", "text": 5}, "text is no text"),
        (
            {"from": ADA, "to": BOB, "subject": "Hi", "text": "Hi", "attachments": [{**ATTACHED, "content": 5}]},
            "the content of an attachment is neither bytes nor base64",
        ),
        ({"from": ADA, "to": {"name": "Bob"}, "subject": "Hi"}, "to is no email address: None"),
        ({"from": ADA, "to": BOB, "subject": UNDEFINED}, "the field 'subject' is missing"),
    ):
        with pytest.raises(RemoteError) as caught:
            await outbox.rpc.send(message)
        assert caught.value.message[: len(text)] == text
    with pytest.raises(TypeError, match=r"send\(\) takes an EmailMessage, or an object of a message's parts"):
        await outbox.rpc.send("x")


# Header injection

INJECTIONS: Final = ["\r\nBcc: eve@example.net", "\nBcc: eve@example.net", "\rBcc: eve@example.net", "\0", "\x0b"]


@pytest.mark.parametrize("evil", INJECTIONS)
@pytest.mark.parametrize(
    "message",
    [
        lambda evil: {"subject": f"Hi{evil}"},
        lambda evil: {"to": f"{BOB}{evil}"},
        lambda evil: {"from_": f"{ADA}{evil}"},
        lambda evil: {"from_": EmailAddress(ADA, f"Ada{evil}")},
        lambda evil: {"reply_to": EmailAddress(ADA, f"Ada{evil}")},
        lambda evil: {"headers": {"X-Note": f"x{evil}"}},
        lambda evil: {"headers": {f"X-Note{evil}": "x"}},
        lambda evil: {"attachments": [Attachment(f"a{evil}", "text/plain", b"")]},
    ],
)
async def test_nothing_gets_a_line_break_into_the_head(
    outbox: SendEmail, tmp_path: Path, message: Callable[[str], dict[str, Any]], evil: str
) -> None:
    with pytest.raises(EmailError):
        await outbox.send(**{**FINE, **message(evil)})
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("headers", "code", "text"),
    [
        ({"Date": "x"}, "E_HEADER_NOT_ALLOWED", "Header 'Date' is not allowed. It is auto-generated by the platform."),
        ({"ARC-Seal": "x"}, "E_HEADER_NOT_ALLOWED", "Header 'ARC-Seal' is not allowed. It is auto-generated"),
        ({"Sender": EVE}, "E_HEADER_NOT_ALLOWED", "Header 'Sender' is not allowed. It is not on the allowlist."),
        (
            {"From": EVE},
            "E_HEADER_USE_API_FIELD",
            "Header 'From' must be set via the 'from' API field, not the 'headers' object.",
        ),
        ({"reply-to": EVE}, "E_HEADER_USE_API_FIELD", "Header 'reply-to' must be set via the 'replyTo' API field"),
        ({"Bad Header!": "x"}, "E_HEADER_NAME_INVALID", "Header name 'Bad Header!' contains invalid characters."),
        ({"X-ü": "x"}, "E_HEADER_NAME_INVALID", "Header name 'X-\\xfc' contains invalid characters."),
        ({"X-" + "a" * 99: "x"}, "E_HEADER_NAME_INVALID", "Header name 'X-aaaaaaaaaaaaaaaaaa'... exceeds 100 byte"),
        ({"X-A": ""}, "E_HEADER_VALUE_INVALID", "Header 'X-A' value must be a string that is not empty."),
        ({"X-A": 5}, "E_HEADER_VALUE_INVALID", "Header 'X-A' value must be a string that is not empty."),
        ({"X-A": "\ud800"}, "E_HEADER_VALUE_INVALID", "Header 'X-A' value is no Unicode text."),
        ({"X-A": "ü" * 1025}, "E_HEADER_VALUE_TOO_LONG", "Header 'X-A' value exceeds 2048 byte limit."),
        ({"X-A": "1", "x-a": "2"}, "E_HEADER_VALUE_INVALID", "Header 'x-a' is given more than once."),
        (
            {"List-Unsubscribe": "<http://example.com>"},
            "E_HEADER_VALUE_INVALID",
            "Header 'List-Unsubscribe' must contain angle-bracket HTTPS or mailto URI(s).",
        ),
        (
            {"List-Unsubscribe": "<mailto:a@example.com>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"},
            "E_HEADER_VALUE_INVALID",
            "Header 'List-Unsubscribe-Post' requires 'List-Unsubscribe' with an HTTPS URI.",
        ),
        ({"Precedence": "first"}, "E_HEADER_VALUE_INVALID", "Header 'Precedence' must be 'bulk' or 'junk' or 'list'."),
        (
            {f"X-{number}": "x" * 2000 for number in range(9)},
            "E_HEADERS_TOO_LARGE",
            "Total custom headers payload (17.6KB) exceeds 16KB limit.",
        ),
    ],
)
async def test_custom_headers_that_are_not_allowed(
    outbox: SendEmail, headers: dict[str, str], code: str, text: str
) -> None:
    with pytest.raises(EmailError) as caught:
        await outbox.send(**FINE, headers=headers)
    assert (caught.value.code, str(caught.value)[: len(text)]) == (code, text)


async def test_more_listed_headers_than_allowed(outbox: SendEmail) -> None:
    # fmt: off
    listed = [
        "In-Reply-To", "References", "List-Id", "List-Archive", "List-Help", "List-Owner", "List-Post",
        "List-Subscribe", "Content-Language", "Keywords", "Comments", "Organization",
        "Require-Recipient-Valid-Since", "Expires", "Reply-By", "Archived-At",
    ]
    # fmt: on
    values = {"Importance": "low", "Priority": "urgent", "Sensitivity": "private", "Auto-Submitted": "auto-replied"}
    headers = dict.fromkeys(listed, "x") | values
    await outbox.send(**FINE, headers=headers)
    with pytest.raises(EmailError, match=r"^21 allowlisted headers provided, maximum is 20\.$") as caught:
        await outbox.send(**FINE, headers={**headers, "Precedence": "bulk"})
    assert caught.value.code == "E_HEADERS_TOO_MANY"


# Messages that are written already


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("form", [str, str.encode, lambda raw: chunks(raw[:7].encode(), raw[7:].encode())])
async def test_a_written_message_goes_as_it_is(outbox: SendEmail, tmp_path: Path, form: Callable[[str], Any]) -> None:
    message_id = await outbox.send(EmailMessage(ADA, BOB, form(RAW)))
    assert files(tmp_path) == [f"Return-Path: <{ADA}>\r\nDelivered-To: {BOB}\r\n{RAW}".encode()]
    assert message_id.endswith("@example.com>")
    assert message_id != "<1@example.com>"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("", "invalid message-id"),
        (f"From: {ADA}\r\n\r\n", "invalid message-id"),
        (f"From: {ADA}\r\nMessage-ID:\r\n\r\n", "invalid message-id"),
        (f"From: {EVE}\r\nMessage-ID: <1@x>\r\n\r\n", "From: header does not match mail from"),
        (f"From: {ADA}, {EVE}\r\nMessage-ID: <1@x>\r\n\r\n", "From: header does not match mail from"),
        (f"From: {EVE}\r\n{RAW}", "From: header does not match mail from"),
        (f"{HEAD}rEceived: x\r\n\r\n", "invalid headers set"),
        (f"{HEAD}no header\r\n\r\n", "could not parse email: a line of its head is no header"),
        (f"{HEAD}X-A: \0\r\n\r\n", "could not parse email: a line of its head is no header"),
        (f" folded\r\n{RAW}", "could not parse email: a line of its head is no header"),
        ("X: " + "y" * 1_000_000 + "\r\nZ: 1\r\n" + RAW, "could not parse email: its headers have more than 1000000"),
        (RAW + "x" * (5 * 1024 * 1024), "the message has more than 5242880 bytes"),
        (lambda: chunks(*[b"x" * 65_536] * 81), "the message has more than 5242880 bytes"),
    ],
    ids=range(13),
)
async def test_a_written_message_that_is_not_valid(outbox: SendEmail, tmp_path: Path, raw: Any, text: str) -> None:
    with pytest.raises(EmailError) as caught:
        await outbox.send(EmailMessage(ADA, BOB, raw() if callable(raw) else raw))
    assert str(caught.value)[: len(text)] == text
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("sender", "recipient"), [(f"{ADA}\r\nDATA", BOB), (ADA, f"{BOB}>\r\nRCPT TO:<{EVE}"), ("", BOB)]
)
async def test_an_envelope_that_is_not_valid(outbox: SendEmail, sender: str, recipient: str) -> None:
    with pytest.raises(EmailError, match="is no email address"):
        await outbox.send(EmailMessage(sender, recipient, RAW))


async def test_a_stream_of_something_else_is_refused(outbox: SendEmail) -> None:
    message = {"from": ADA, "to": BOB}
    with pytest.raises(RemoteError, match="a stream of bytes, and this one has something else"):
        await outbox.rpc.send({**message, "EmailMessage::raw": ReadableStream(cast(Any, chunks("text")))})  # type: ignore[arg-type]
    with pytest.raises(RemoteError, match="is text, or a stream of bytes"):
        await outbox.rpc.send({**message, "EmailMessage::raw": 5})


async def test_a_message_and_parts_of_one_are_too_much(outbox: SendEmail) -> None:
    with pytest.raises(TypeError, match="takes a message, or the parts of one, not both"):
        await outbox.send(EmailMessage(ADA, BOB, RAW), subject="Hi")


# Addresses that are allowed


async def test_only_listed_addresses_are_written_to(tmp_path: Path) -> None:
    async with opened(tmp_path, allowed_destination_addresses=[BOB], allowed_sender_addresses=[ADA]) as outbox:
        await outbox.send(**FINE)
        await outbox.send(EmailMessage(ADA, BOB, RAW))
        for field in ("to", "cc", "bcc"):
            with pytest.raises(EmailError, match=f"^email to {EVE} not allowed$") as caught:
                await outbox.send(**{**FINE, field: [BOB, EVE]})
            assert caught.value.code == "E_RECIPIENT_NOT_ALLOWED"
        with pytest.raises(EmailError, match=f"^email from {EVE} not allowed$") as caught:
            await outbox.send(**{**FINE, "from_": EVE})
        assert caught.value.code is None
    assert len(files(tmp_path)) == 2


async def test_an_empty_list_allows_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path, allowed_sender_addresses=[]) as outbox:
        with pytest.raises(EmailError, match=f"^email from {ADA} not allowed$"):
            await outbox.send(**FINE)


async def test_one_address_is_written_to(tmp_path: Path) -> None:
    async with opened(tmp_path, destination_address=BOB) as outbox:
        await outbox.send(**FINE)
        with pytest.raises(EmailError, match=f"^email to {EVE} not allowed$"):
            await outbox.send(**{**FINE, "to": EVE})


async def test_what_is_to_nobody_goes_to_the_one_address(tmp_path: Path) -> None:
    async with opened(tmp_path, destination_address=BOB) as outbox:
        await outbox.send(**{**FINE, "to": None})
        await outbox.rpc.send({"from": ADA, "to": UNDEFINED, "EmailMessage::raw": RAW})
        await outbox.rpc.send({"from": ADA, "to": None, "EmailMessage::raw": RAW})
    assert [content.splitlines()[1] for content in files(tmp_path)] == [f"Delivered-To: {BOB}".encode()] * 3


@pytest.mark.parametrize("address", [f"Ada L. <{ADA}>", f'"Ada L." <{ADA}>', f"  Ada L.<{ADA}> "])
async def test_a_name_may_stand_before_an_address(outbox: SendEmail, tmp_path: Path, address: str) -> None:
    message_id = await outbox.send(**{**FINE, "from_": address, "to": [f"<{BOB}>"]})
    assert message_id.endswith("@example.com>")
    (author,) = only(tmp_path)["From"].addresses
    assert (author.display_name, author.addr_spec, only(tmp_path)["To"]) == ("Ada L.", ADA, BOB)
    assert only(tmp_path)["Message-ID"] == message_id


# SMTP


async def test_a_message_goes_by_smtp_with_its_envelope(tmp_path: Path) -> None:
    with mail_server() as server:
        async with opened(tmp_path, store=f"smtp://127.0.0.1:{server.port}") as outbox:
            await outbox.send(**{**FINE, "text": "Hello\r\n.\r\nQUIT\r\n"}, bcc=EVE)
            received = server.received()
            assert (received["sender"], received["recipients"]) == (ADA, [BOB, EVE])
            parsed = email.message_from_string(received["content"], policy=default)
            assert parsed.get_payload() == "Hello\r\n.\r\nQUIT\r\n"
            await outbox.send(EmailMessage(ADA, BOB, RAW.replace("Hello\r\n", "a\n.\nb\r.\rc\r\n")))
            # Lines end as SMTP has them end: none is taken for the end of the message.
            assert server.received()["content"].endswith("\r\n\r\na\r\n.\r\nb\r\n.\r\nc\r\n")


async def test_a_message_that_was_taken_is_delivered_however_the_server_takes_leave(tmp_path: Path) -> None:
    with mail_server("--rude") as server:
        async with opened(tmp_path, store=f"smtp://127.0.0.1:{server.port}") as outbox:
            await outbox.send(**FINE)
            assert server.received()["recipients"] == [BOB]


async def test_what_the_mail_server_refuses_is_an_error(tmp_path: Path) -> None:
    with mail_server() as server:
        async with opened(tmp_path, store=f"smtp://127.0.0.1:{server.port}") as outbox:
            refused = r"the mail server refuses refused@example.org \(550 nobody of that name\)"
            with pytest.raises(EmailError, match=f"^{refused}$") as caught:
                await outbox.send(**{**FINE, "to": "refused@example.org"})
            assert caught.value.code == "E_DELIVERY_FAILED"
            with pytest.raises(EmailError, match=f"^{refused}, and has taken it for all others$"):
                await outbox.send(**FINE, cc="refused@example.org")
            with pytest.raises(EmailError, match=r"^the mail server answers 554 spam$"):
                await outbox.send(**{**FINE, "text": "too spicy"})


async def test_a_mail_server_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with mail_server() as server:
        async with opened(tmp_path, store=f"smtp://127.0.0.1:{server.port}") as outbox:
            await outbox.send(**FINE)
            server.kill()
            with pytest.raises(EmailError, match=r"^the mail server cannot be used: ") as caught:
                await outbox.send(**FINE)
            assert caught.value.code == "E_DELIVERY_FAILED"


async def test_a_password_is_sent_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", "open sesame")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    with mail_server("--tls", tmp_path / "server.pem", "--login") as server:
        table = {"store": f"smtp://shop@127.0.0.1:{server.port}", "password_env": "MAIL_PASSWORD"}
        async with opened(tmp_path, **table, ca_file=str(tmp_path / "ca.pem")) as outbox:
            await outbox.send(**FINE)
            received = server.received()
            assert (received["encrypted"], received["user"]) == (True, "shop")
        async with opened(tmp_path, **table) as outbox:
            with pytest.raises(EmailError, match="certificate verify failed"):
                await outbox.send(**FINE)
        monkeypatch.setenv("MAIL_PASSWORD", "guess")
        async with opened(tmp_path, **table, ca_file=str(tmp_path / "ca.pem")) as outbox:
            with pytest.raises(EmailError, match=r"^the mail server answers 535 ") as caught:
                await outbox.send(**FINE)
            assert "guess" not in str(caught.value)


async def test_a_password_goes_to_no_other_machine_in_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", "open sesame")
    with mail_server("--login") as server:
        # The server of this machine, by a name that could be anybody's.
        monkeypatch.setattr(socket, "getaddrinfo", _to_this_machine(socket.getaddrinfo))
        table = {"store": f"smtp://shop@mail.example.com:{server.port}", "password_env": "MAIL_PASSWORD"}
        async with opened(tmp_path, **table) as outbox:
            with pytest.raises(EmailError, match="offers no encryption, and a password is not sent without"):
                await outbox.send(**FINE)


def _to_this_machine(resolve: Callable[..., Any]) -> Callable[..., Any]:
    return lambda host, *rest, **options: resolve("127.0.0.1" if host == "mail.example.com" else host, *rest, **options)


# Configuration


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"store": "ftp://x"}, 'bindings.EMAIL.store: "ftp://x" takes no mail'),
        ({"store": "file:///"}, 'bindings.EMAIL.store: "file:///" takes no mail'),
        ({"store": "smtp://"}, "bindings.EMAIL.store: an SMTP server is named as"),
        ({"store": "smtp://host/path"}, "bindings.EMAIL.store: an SMTP server is named as"),
        ({"store": "smtp://a:secret@host"}, "bindings.EMAIL.store: the password of an SMTP server is not in its URL"),
        ({"store": "smtp://a@host"}, "bindings.EMAIL.store: an SMTP server that is logged in to needs a user"),
        (
            {"store": "smtp://a@host", "password_env": "NO_SUCH_VARIABLE"},
            "bindings.EMAIL.password_env: the environment variable NO_SUCH_VARIABLE is not set",
        ),
        ({"store": "smtp://host", "ca_file": "/nowhere.pem"}, "bindings.EMAIL.ca_file: the certificates cannot"),
        (
            {"destination_address": BOB, "allowed_destination_addresses": [BOB]},
            "bindings.EMAIL.allowed_destination_addresses: one address or a list of them",
        ),
        ({"allowed_sender_addresses": [5]}, "bindings.EMAIL.allowed_sender_addresses[0]: a string is needed"),
        ({"max_message_bytes": 0}, "bindings.EMAIL.max_message_bytes: 0 is out of range"),
        ({"colour": "red"}, "bindings.EMAIL.colour: unknown key"),
    ],
)
async def test_a_configuration_that_is_not_valid(tmp_path: Path, table: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_binding(Table({"type": "send_email", **table}, Path("capnweb.toml"), "bindings.EMAIL"), tmp_path)
    assert f"capnweb.toml: {problem}" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_a_server_never_shows_its_password() -> None:
    assert "open sesame" not in repr(parse_smtp_url("smtps://shop@host", "open sesame"))


async def test_files_are_named_by_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One nanosecond before a second is full: a clock that is read twice would say the beginning of the one before.
    times = itertools.count(1_700_000_000_999_999_999)
    monkeypatch.setattr("proxy_server.stores.mail_files.time.time_ns", lambda: next(times))
    folder = MailFiles(tmp_path)
    for _ in range(2):
        await folder.deliver(Mail(ADA, [BOB], b""))
    names = sorted([path.name.partition("-")[0] async for path in anyio.Path(tmp_path).glob("*.eml")])
    assert names == ["20231114T221320.999999999", "20231114T221321.000000000"]


async def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "email-EMAIL").write_text("in the way")
    async with opened(tmp_path) as outbox:
        with pytest.raises(EmailError, match=r"^the message could not be stored: ") as caught:
            await outbox.send(**FINE)
        assert caught.value.code == "E_DELIVERY_FAILED"


# A real server


async def test_the_facade_of_a_real_server(tmp_path: Path) -> None:
    config = tmp_path / "capnweb.toml"
    config.write_text('[bindings.EMAIL]\ntype = "send_email"\n')
    with serving(config) as server:
        async with connect_env(server.url) as env:
            assert repr(env.EMAIL) == "<send_email EMAIL>"
            await env.EMAIL.send(**FINE)
            await env.EMAIL.send(EmailMessage(ADA, BOB, RAW))
    assert len(files(tmp_path / ".capnweb")) == 2


async def test_the_examples_of_the_documentation_run(tmp_path: Path) -> None:
    config = tmp_path / "capnweb.toml"
    config.write_text('[bindings.EMAIL]\ntype = "send_email"\n')
    raw = RAW.replace(ADA, "shop@example.com")
    with serving(config) as server:
        page = DOCUMENTS / "bindings" / "send_email.md"
        names = {"connection_string": server.url, "picture": b"\0", "bill": b"%PDF", "raw": raw}
        assert await run_examples(page, **names) == 1
    assert len(files(tmp_path / ".capnweb")) == 2


async def test_a_request_is_told_to_call(tmp_path: Path) -> None:
    source = Table({"type": "send_email"}, tmp_path / "capnweb.toml", "bindings.EMAIL")
    async with proxy(EMAIL=parse_binding(source, tmp_path)) as app:
        reply = await fetch(app, http_scope("EMAIL"))
        assert (reply.status, reply.body) == (500, b"a send_email binding speaks RPC only: call send()")
