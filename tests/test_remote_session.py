"""A proxy server of a program's own, whose bindings change under way: what runs on the others goes on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from proxying import ROOT

from capnweb_py.remote import (
    connect_env,
    maybe_start_or_update_remote_proxy_session,
    start_remote_proxy_session,
)
from proxy_server import remote_bindings

pytestmark = pytest.mark.anyio

SERVICE: Final = {"type": "service", "target": "tests.services:Service"}
CHAT: Final = {"type": "service", "target": "tests.chat:Chat"}
FORMS: Final = {"type": "service", "target": "tests.services:Forms"}
BINDINGS: Final[Mapping[str, Mapping[str, Any]]] = {"SVC": SERVICE, "CHAT": CHAT, "OTHER": SERVICE}

# What becomes of the binding OTHER.
CHANGES: Final = {
    "added to": {**BINDINGS, "MORE": FORMS},
    "changed": {**BINDINGS, "OTHER": FORMS},
    "removed": {"SVC": SERVICE, "CHAT": CHAT},
}


@pytest.fixture(autouse=True)
def _in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets are imported from the current directory."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("change", CHANGES)
async def test_what_runs_on_one_binding_goes_on_while_another_one_changes(change: str) -> None:
    outcome: list[str] = []
    begun = anyio.Event()
    may_end = anyio.Event()

    async def call() -> None:
        outcome.append(await env.SVC.wait(begun.set))

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await may_end.wait()
        yield b"last"

    async with await start_remote_proxy_session(BINDINGS) as session, connect_env(session.connection_string) as env:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks, env.CHAT.websocket("https://a.example/echo") as chat:
                tasks.start_soon(call)
                await begun.wait()
                counter = await env.SVC.make_counter(1)
                response = await env.SVC.fetch("https://a.example/duplex", method="POST", body=body())
                assert response.body is not None
                chunks = aiter(response.body)
                assert await anext(chunks) == b"first"

                before = session.connection_string
                await session.update_bindings(CHANGES[change])
                assert session.connection_string == before

                await chat.send("still here")
                assert await chat.receive() == "still here"
                assert await counter.increment() == 2
                may_end.set()
                assert [chunk async for chunk in chunks] == [b"last"]
                await env.SVC.permit("undisturbed")
        assert outcome == ["undisturbed"]


async def test_the_remote_bindings_of_a_file_are_what_a_session_is_made_of(tmp_path: Path) -> None:
    config = tmp_path / "wrangler.jsonc"

    def write(*, remote: bool) -> None:
        services = [{"binding": "SVC", "service": "svc", "remote": remote}, {"binding": "OTHER", "service": "other"}]
        own = {name: {"target": "tests.services:Service"} for name in ("SVC", "OTHER")}
        config.write_text(json.dumps({"services": services, "capnweb": {"bindings": own}}))

    write(remote=False)
    data = await maybe_start_or_update_remote_proxy_session(remote_bindings(config))
    assert data is None
    write(remote=True)
    assert remote_bindings(config) == {"SVC": {**SERVICE, "remote": True}}
    data = await maybe_start_or_update_remote_proxy_session(remote_bindings(config))
    assert data is not None
    async with data.session as session, connect_env(session.connection_string) as env:
        assert dir(env) == ["SVC"]
        assert await env.SVC.hello("World") == "Hello, World!"
        write(remote=False)
        data = await maybe_start_or_update_remote_proxy_session(remote_bindings(config), data)
        assert data is not None
        assert data.session is session
        assert data.remote_bindings == {}


def test_what_is_always_remote_is_among_them(tmp_path: Path) -> None:
    config = tmp_path / "wrangler.jsonc"
    config.write_text('{"ai": {"binding": "AI"}, "env": {"staging": {"images": {"binding": "I", "remote": true}}}}')
    assert remote_bindings(config) == {"AI": {"type": "ai", "remote": True}}
    assert remote_bindings(config, "staging") == {"I": {"type": "images", "remote": True}}
