"""Several processes that serve as one: `serve --workers 2` in processes of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.origin import Origin, reply
from tests.support.team import team

LATER = 1893456000


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin(reply(200, [], b"answer")) as one:
        yield one


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    return data


async def test_workers_share_one_cache_and_one_vault(data: Path, origin: Origin) -> None:
    """What one has kept the other answers, what one has renewed the other forgets; a revoked token
    ends at each of them within a second."""
    async with team(data, origin) as up:
        one, other = await up.meet(2)
        kept = up.target(options=f"&cache={LATER}")
        assert (await up.ask(one, kept)).status == 200
        while "hit" not in ((await up.ask(other, kept)).header("cache-status") or ""):
            await asyncio.sleep(0.01)  # it is being written; the test's own time bounds it
        calls = len(origin.requests)
        assert "hit" in ((await up.ask(other, kept)).header("cache-status") or "")
        assert len(origin.requests) == calls
        origin.answer_with(reply(200, [], b"newer"))
        renewed = await up.ask(one, up.target(options=f"&cache={LATER}&invalidate"))
        assert renewed.body == b"newer"
        while (await up.ask(other, kept)).body != b"newer":
            await asyncio.sleep(0.01)
        await up.vault.revoke_token("default", "caller")
        await asyncio.sleep(1)
        assert [(await up.ask(caller, kept)).status for caller in (one, other)] == [401, 401]
