"""A vault for each test, as one that was made once: in a SQLite file, and for what an engine could
do otherwise in PostgreSQL too."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from tests.support.engines import RunningPostgres
from tests.vault.words import open_vault, said, url_of
from vault import Vault, schema
from vault import open_vault as open_vault_at
from vault.tables import METADATA

Opener = Callable[..., Awaitable[Vault]]

ON_BOTH = frozenset(
    f"tests.vault.test_{name}"
    for name in (
        "audit",
        "declaring",
        "held",
        "importing",
        "issued",
        "keys",
        "lookups",
        "places",
        "postgres",
        "processes",
        "register",
        "rotation",
        "shortlived",
        "tenants",
    )
)
"""What runs on each engine; a test of these that is about the file has the mark `on_file`."""

_TABLES = [table.name for table in METADATA.sorted_tables]
_KEEP = "CREATE TABLE made.{0} AS SELECT * FROM {0};"
_EMPTY = "DELETE FROM {0};"
_FILL = "INSERT INTO {0} SELECT * FROM made.{0};"
_COUNT_ANEW = (
    "SELECT setval('backends_id_seq', 1, false);"
    f"UPDATE alembic_version SET version_num = '{schema.HEAD}'"
)

ENGINES = ("sqlite", "postgresql")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test of those files that has a data directory, once on each engine."""
    chosen = any("engine" in mark.args for mark in metafunc.definition.iter_markers("parametrize"))
    both = metafunc.module.__name__ in ON_BOTH and not chosen
    if both and "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", ENGINES)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without what is about the file, on a server."""
    items[:] = [item for item in items if not _no_file(item)]


def _no_file(item: pytest.Item) -> bool:
    found = getattr(item, "callspec", None)
    there = found is not None and found.params.get("engine") == "postgresql"
    return there and item.get_closest_marker("on_file") is not None


@pytest.fixture
def engine() -> str:
    """The one of the test."""
    return "sqlite"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory as `init` leaves it."""
    return _made(tmp_path_factory.mktemp("made") / "data", None)


@pytest.fixture(scope="session")
def made_there(tmp_path_factory: pytest.TempPathFactory, postgres: RunningPostgres) -> Path:
    """The same with its database on the server, which also keeps every row as it was made."""
    url, folder = postgres.another(), tmp_path_factory.mktemp("there")
    data = _made(folder / "data", url)
    (folder / "url").write_text(url)
    said(url, "CREATE SCHEMA made;" + "".join(map(_KEEP.format, _TABLES)))
    return data


def _made(data: Path, url: str | None) -> Path:
    async def make() -> None:
        vault = await open_vault_at(data, {}, FakeClock(), url=url, create=True)
        await vault.close()

    asyncio.run(make())
    return data


@pytest.fixture
def nothing_yet(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A data directory that is not there, and on a server an empty database."""
    if engine == "postgresql":
        server: RunningPostgres = request.getfixturevalue("postgres")
        (tmp_path / "url").write_text(server.another())
    return tmp_path / "data"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def data(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    if engine == "sqlite":
        return Path(shutil.copytree(request.getfixturevalue("made"), tmp_path / "data"))
    made: Path = request.getfixturevalue("made_there")
    patient: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for deadline in ("sessions.CONNECT_SECONDS", "postgres.LOOK_SECONDS"):
        patient.setattr(f"vault.{deadline}", 30.0)  # a busy machine is no lost server
    # To empty tables of a few rows is far quicker than to make another database.
    back = "".join(map(_EMPTY.format, reversed(_TABLES))) + "".join(map(_FILL.format, _TABLES))
    said(str(url_of(made)), back + _COUNT_ANEW)
    shutil.copy(made.parent / "url", tmp_path)
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
