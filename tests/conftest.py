"""Two watches over every test: nothing dials past the dialler, no secret is left anywhere."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from hypothesis import settings

from tests.support import authorities, canaries, dials, engines

if TYPE_CHECKING:
    from playwright.async_api import Browser

ROOT = Path(__file__).parent.parent
settings.register_profile("unhurried", deadline=None)  # no test is judged by the time it took
settings.load_profile("unhurried")
ENGINES = {"redis", "redis_server", "postgres"}
"""Fixtures whose server goes on when a test is over."""
TALLY = "RELAY_TESTS_TALLY"
"""The variable with the folder where a session says at its end what it has watched."""

_watch: list[tuple[dials.Watch, Path]] = []
_engines: list[engines.Running] = []
_seen: Counter[str] = Counter()


def pytest_sessionstart(session: pytest.Session) -> None:
    reports = Path(session.config._tmp_path_factory.mktemp("reports"))  # type: ignore[attr-defined]
    os.environ[dials.REPORTS] = str(reports)
    inside = str(ROOT / "tests/support/child")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [inside, os.environ.get("PYTHONPATH")]))
    _watch.append((dials.begin(reports), reports))
    canaries.begin()
    authorities.begin()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With the numbers of `make attack`, points 4 and 5."""
    if folder := os.environ.get(TALLY):
        canaries.LEDGER.begin()
        dialled = _watch[0][0].allowed.total()
        told = {**canaries.LEDGER.tally, **_seen, "dials": dialled + _seen["theirs"]}
        Path(folder, f"{os.getpid()}.json").write_text(json.dumps(told))


@pytest.fixture
def watched() -> dials.Watch:
    """What this process was seen to dial."""
    return _watch[0][0]


def foreign() -> list[str]:
    """What was dialled past the dialler since last asked, here or in processes of ours."""
    watch, reports = _watch[0]
    found, watch.foreign = watch.foreign, []
    said = reports / "dials"
    if said.exists():
        lines = said.read_text().splitlines()
        found += [line for line in lines if line.startswith("foreign ")]
        _seen["theirs"] += sum(line.startswith("allowed ") for line in lines)
        said.unlink()
    return found


def look_at_what_is_shared(fixtures: Collection[str]) -> None:
    """What was written to engines that go on, and what workers and their coordinator said."""
    ledger, (_, reports) = canaries.LEDGER, _watch[0]
    if _engines and ENGINES & set(fixtures):
        ledger.last()
        for engine in _engines:
            engine.look()
    for said in reports.glob("socket-*"):
        ledger.look("the coordinator's socket", said.read_bytes())
        said.unlink()


@pytest.fixture(autouse=True)
def nothing_goes_past_the_guards(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set up first, and so asked last, when all that a test opened is closed."""
    ledger = canaries.LEDGER
    ledger.begin()
    folder: Path | None = None
    if "tmp_path" in request.fixturenames:
        folder = request.getfixturevalue("tmp_path")
    yield
    if folder is not None and folder.is_dir():
        ledger.look_at_files(folder)
    look_at_what_is_shared(request.fixturenames)
    past = foreign()
    _seen.update(tests=1, past=len(past))
    assert past == []
    assert ledger.leaks == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """What a test wrote to standard output, standard error and the log is looked at too."""
    report = yield
    ledger = canaries.LEDGER
    if call.when == "call":
        for name, text in report.sections:
            ledger.look(name, text.encode("utf-8", "surrogateescape"))
    return report


def shared(starting: AbstractContextManager[engines.Running]) -> Iterator[engines.Running]:
    """A server for all tests of the session, of which none leaves a secret there."""
    ledger = canaries.LEDGER
    with starting as running:
        _engines.append(running)
        yield running
        _engines.remove(running)
        ledger.recall()
        ledger.leaks.clear()
    assert ledger.leaks == []


@pytest.fixture(scope="session")
def redis_server() -> Iterator[engines.Running]:
    """One for all tests that leave it running; each takes names or a database of its own. It notes
    all that it is told to keep."""
    yield from shared(engines.redis_running("--appendonly", "yes", "--appendfsync", "no"))


@pytest.fixture
def redis(redis_server: engines.RunningRedis) -> engines.RunningRedis:
    """It, emptied."""
    redis_server.say("flushall")
    return redis_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[engines.Running]:
    """One for all tests that leave it running; `another()` makes an empty database."""
    yield from shared(engines.postgres_running())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for all tests on the session's loop; each takes a window of its own profile."""
    from tests.support.browser import chromium  # noqa: PLC0415 - few tests want it

    async with chromium() as running:
        yield running
