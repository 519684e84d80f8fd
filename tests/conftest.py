"""Fixtures of all tests: every asynchronous one runs on both event loops."""

from __future__ import annotations

import hypothesis
import pytest

# A slow machine is no failure, and a failure must be the same one the next time.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("tests")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
