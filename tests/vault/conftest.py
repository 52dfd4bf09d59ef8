"""A vault on a real SQLite file for each test, copied from one that was made once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from vault import Vault, open_vault

Opener = Callable[..., Awaitable[Vault]]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory as `init` leaves it."""
    data = tmp_path_factory.mktemp("made") / "data"

    async def make() -> None:
        vault = await open_vault(data, {}, FakeClock(), create=True)
        await vault.close()

    asyncio.run(make())
    return data


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


@pytest.fixture
async def opener(data: Path, clock: FakeClock) -> AsyncIterator[Opener]:
    """Opens the vault of the data directory, as often as wanted, as a process of its own would."""
    opened: list[Vault] = []

    async def again(environ: Mapping[str, str] | None = None, actor: str = "cli") -> Vault:
        opened.append(await open_vault(data, environ or {}, clock, actor=actor))
        return opened[-1]

    yield again
    for vault in opened:
        await vault.close()


@pytest.fixture
async def vault(opener: Opener) -> Vault:
    return await opener()
