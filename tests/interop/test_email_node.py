"""The send_email binding used by npm capnweb from Node, as a browser would use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from proxying import serving

from .node import report_of, rpc_url


@attrs.frozen
class Sent:
    """What a Node client reports, and the messages that came of it."""

    report: dict[str, Any]
    messages: list[bytes]


@pytest.fixture(scope="module", params=["json", "cbor"])
def sent(request: pytest.FixtureRequest, node: str, tmp_path_factory: pytest.TempPathFactory) -> Sent:
    directory: Path = tmp_path_factory.mktemp("email")
    config = directory / "capnweb.toml"
    config.write_text('[bindings.EMAIL]\ntype = "send_email"\nallowed_destination_addresses = ["bob@example.org"]\n')
    with serving(config) as server:
        values = report_of(node, "email.mjs", rpc_url(server.url, "EMAIL"), codec=request.param)
    folder = directory / ".capnweb" / "email-EMAIL"
    return Sent(values, [path.read_bytes() for path in sorted(folder.glob("*.eml"))])


def test_both_forms_of_a_message_arrive(sent: Sent) -> None:
    written, streamed, built = sent.messages
    assert written == streamed
    assert written.endswith(b"\r\nMessage-ID: <1@example.com>\r\n\r\nHello\r\n")
    assert sent.report["ids"][2].encode() in built
    assert b"AP8=" in built  # the attachment
    assert all(message_id.endswith("@example.com>") for message_id in sent.report["ids"])


def test_errors_are_those_of_the_workers_api(sent: Sent) -> None:
    errors = sent.report["errors"]
    refused = {"name": "Error", "message": "email to eve@example.net not allowed", "code": "E_RECIPIENT_NOT_ALLOWED"}
    assert errors["recipient"] == refused
    missing = {"name": "Error", "message": "the field 'subject' is missing", "code": "E_FIELD_MISSING"}
    assert errors["subject"] == missing
    assert errors["nothing"]["name"] == errors["text"]["name"] == "TypeError"
