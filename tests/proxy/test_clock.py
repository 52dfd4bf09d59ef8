"""Somebody sets the clock, by weeks, forward or back: what lasts so many seconds lasts as long."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterable
from contextlib import suppress

import pytest

from proxy.addresses import Address
from proxy.admin.session import IDLE_SECONDS, LONGEST_SECONDS, Sessions
from proxy.cache.entry import StoreError
from proxy.cache.lane import REST_SECONDS, Lane
from proxy.cache.trouble import QUIET_SECONDS, Trouble
from proxy.clock import SystemClock
from proxy.config.signin import IssuerEntry
from proxy.destinations import parse_destination
from proxy.door import TELL_SECONDS, Door, DoorRules
from proxy.engine import PAUSE_SECONDS, Engine, Gone, Place
from proxy.errors import DestinationRefused, TooManyGuesses, Unavailable
from proxy.grant import Client
from proxy.guesses import Guesses
from proxy.health.readiness import KEPT_SECONDS, Readiness
from proxy.limits.counters import State
from proxy.limits.grammar import parse_rate
from proxy.limits.limiter import LIMITERS
from proxy.limits.rules import Bill, Window
from proxy.network import dial
from proxy.outage import Gap, Outage
from proxy.signin.keyring import AGAIN_SECONDS, FIRST_SECONDS, FRESH_SECONDS, STALE_SECONDS, Keyring
from proxy.trail import AT_ONCE, EVERY_SECONDS, Trail
from proxy.upstream.transport import Deadlines
from proxy.upstream.wire.answer import Answer
from proxy.upstream.wire.connection import Connection
from proxy.workers.counting import TeamCounts
from tests.support.clock import FakeClock
from tests.support.issuer import Signer, key_set
from tests.support.origin import Origin, reply
from tests.support.outbound import fetch
from tests.support.wire import wire_sender
from vault import AuditEntry, Holdings, Token

WEEKS = 30 * 86_400.0 + 17.5
"""Thirty days, and a little, so that no window of any length begins at the same moment."""


@pytest.fixture(params=[WEEKS, -WEEKS], ids=["forward", "back"])
def by(request: pytest.FixtureRequest) -> float:
    """How far it is set."""
    found: float = request.param
    return found


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_setting_it_is_no_time_that_passes(clock: FakeClock, by: float) -> None:
    """The two of them have nothing in common, as those of a machine have not."""
    for one in (clock, SystemClock()):
        assert one.now() != one.monotonic()
    now, monotonic = clock.now(), clock.monotonic()
    clock.be_set(by)
    assert (clock.now(), clock.monotonic()) == (now + by, monotonic)


@pytest.mark.parametrize("kind", ["sliding", "moving"])
def test_a_window_of_calls(clock: FakeClock, by: float, kind: str) -> None:
    """Neither does it open early, nor stay shut for weeks; the wait that is told stays true."""
    limiter, windows = LIMITERS[kind](clock), (Window("k/60", 3, 60, "k", "k"),)
    assert [limiter.take(windows)[0] for _ in range(4)] == [True, True, True, False]
    before = limiter.look(windows)
    clock.be_set(by)
    assert limiter.look(windows) == before
    assert not limiter.take(windows)[0]
    clock.advance(120)
    assert [limiter.take(windows)[0] for _ in range(4)] == [True, True, True, False]


def test_wrong_tokens_of_an_address(clock: FakeClock, by: float) -> None:
    """Whoever guesses gains nothing by it, and whoever mistyped is let in when it was said."""
    guesses = Guesses(parse_rate("1/minute"), clock)
    guesses.wrong("192.0.2.7", b"kr_x")
    clock.advance(20)
    clock.be_set(by)
    with pytest.raises(TooManyGuesses, match="in 40 seconds"):
        guesses.check("192.0.2.7", b"kr_new")
    clock.advance(40)
    guesses.check("192.0.2.7", b"kr_new")


class Books:
    """A vault with one token."""

    ada = Token("adaadaadaada", "ada", "default", "admin", 0.0)

    async def verify_token(self, _text: bytes) -> Token:
        return self.ada

    async def good_token(self, _token_id: str) -> Token:
        return self.ada


async def test_a_session_of_a_person(clock: FakeClock, by: float) -> None:
    """It ends when nobody has used it for so long, and after so long whatever was done."""
    sessions = Sessions(Books(), clock)

    async def signed_in() -> tuple[tuple[bytes, bytes], ...]:
        _, line = await sessions.sign_in(b"kr_ada")
        return ((b"cookie", line.split(b";")[0]),)

    idle = await signed_in()
    clock.be_set(by)
    clock.advance(IDLE_SECONDS - 1)
    assert await sessions.find(idle, used=False) is not None
    clock.advance(1)
    assert await sessions.find(idle) is None
    busy, steps = await signed_in(), LONGEST_SECONDS // 600
    for _ in range(steps - 1):
        clock.be_set(by)
        clock.advance(600)
        assert await sessions.find(busy) is not None
        by = -by
    clock.advance(600)
    assert await sessions.find(busy) is None


async def test_a_lost_vault(clock: FakeClock, by: float) -> None:
    """What was seen is served for as long as was said: `server.vault_grace`."""
    lapses: list[int] = []
    outage = Outage(clock, 300, lambda: lapses.append(1))
    outage.begin()
    outage.fail(OSError("gone"))
    clock.advance(100)
    clock.be_set(by)
    for _ in range(2):
        await outage.look()
    assert (lapses, outage.gap()) == ([], Gap(100, 200))
    clock.advance(200)
    for _ in range(2):
        await outage.look()
    assert (lapses, outage.gap()) == ([1], Gap(300, 0))


class Issuer:
    """Somebody's keys; how often they were fetched."""

    entry = IssuerEntry.model_validate(
        {"name": "login", "issuer": "https://login.example.com", "audience": "keyrelay"}
    )

    def __init__(self) -> None:
        self.octets = json.dumps(key_set([Signer()])).encode()
        self.fetched = 0

    async def keys(self, _entry: IssuerEntry) -> bytes:
        self.fetched += 1
        return self.octets


async def test_the_keys_of_an_issuer(clock: FakeClock, by: float) -> None:
    """Fresh, then fetched again, and not more often; too old at last."""
    issuer = Issuer()
    ring = Keyring(issuer.entry, issuer, clock, lambda: None)
    assert await ring.find("ES256", "one") is not None
    clock.be_set(by)
    await ring.refresh_if_due()
    assert await ring.find("ES256", "unknown") is None
    assert issuer.fetched == 1
    clock.advance(AGAIN_SECONDS)
    assert await ring.find("ES256", "unknown") is None
    clock.advance(FRESH_SECONDS)
    await ring.refresh_if_due()
    assert issuer.fetched == 3
    issuer.octets = b"nothing"
    clock.advance(STALE_SECONDS - 1)
    clock.be_set(-by)
    assert await ring.find("ES256", "one") is not None
    clock.advance(FIRST_SECONDS)
    with pytest.raises(Unavailable):
        await ring.find("ES256", "one")


async def test_a_connection_that_is_kept_open(clock: FakeClock, by: float) -> None:
    """Used again for half a minute."""
    async with Origin(reply(200, [], b"ok")) as origin, wire_sender(clock=clock) as to:
        await fetch(to, origin.url)
        clock.be_set(by)
        clock.advance(29)
        await fetch(to, origin.url)
        assert origin.connections == 1
        clock.be_set(-by)
        clock.advance(30)
        await fetch(to, origin.url)
        assert origin.connections == 2


async def test_the_time_for_a_whole_call(clock: FakeClock, by: float) -> None:
    """Of a minute a minute is left, and no more, however the clock was set while it connects."""
    left: list[float | None] = []

    async def set_meanwhile(address: Address, port: int) -> socket.socket:
        clock.be_set(by)
        return await dial(address, port)

    def begin(self: Connection, answer: Answer, seconds: float | None) -> None:
        left.append(seconds)
        real(self, answer, seconds)

    real = Connection.begin
    seen = pytest.MonkeyPatch.context()
    sender = wire_sender(clock=clock, wires=set_meanwhile)
    async with Origin(reply(200, [], b"ok")) as origin, sender as to:
        with seen as patched:
            patched.setattr(Connection, "begin", begin)
            _, octets = await fetch(to, origin.url, deadlines=Deadlines(total=60))
    assert octets == b"ok"
    assert left == [60]


class Elsewhere:
    """Who counts for all workers; says that two calls and a minute are left."""

    def when(self, *_news: object) -> None:
        """Nothing happens."""

    async def ask(self, *_words: object) -> object:
        return None, [(2, 60.0)]


async def test_what_was_told_of_a_window_that_others_count(clock: FakeClock, by: float) -> None:
    """It gets older by the seconds that pass."""
    counts = TeamCounts(Elsewhere(), "sliding", clock)  # type: ignore[arg-type]
    bill = Bill("t", (Window("k/60", 3, 60, "k", "k"),))
    await counts.take(bill)
    clock.advance(20)
    clock.be_set(by)
    assert counts.look(bill) == (State(2, 40.0),)


class Book:
    """An audit log that takes everything."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    async def note(self, entries: Iterable[AuditEntry]) -> None:
        self.entries += entries


async def test_entries_of_the_audit_log(clock: FakeClock, by: float) -> None:
    """No flood of them by a clock that jumps, and no silence."""
    book, place = Book(), parse_destination("https://metadata.example/")
    trail = Trail(book, clock)

    async def refused(times: int) -> int:
        for _ in range(times):
            trail.refuse(Client("ann", Holdings("default")), place, DestinationRefused("No."))
        before = len(book.entries)
        await trail.flush()
        return len(book.entries) - before

    assert await refused(AT_ONCE) == AT_ONCE
    clock.be_set(by)
    assert await refused(0) == await refused(3) == 0
    clock.advance(EVERY_SECONDS)
    assert await refused(0) == 1
    assert book.entries[-1].subject == "3 more, left out"


async def test_whether_a_server_is_ready(clock: FakeClock, by: float) -> None:
    """What was found holds for a second, no less and no more."""
    asked: list[int] = []

    async def part() -> None:
        asked.append(1)

    readiness = Readiness({"vault": part}, clock)
    await readiness.look()
    clock.be_set(by)
    await readiness.look()
    assert len(asked) == 1
    clock.advance(KEPT_SECONDS)
    await readiness.look()
    assert len(asked) == 2


async def test_a_redis_that_is_gone(clock: FakeClock, by: float) -> None:
    """It is left alone for as long as otherwise, and then asked."""
    engine, asked = Engine(Place.of("redis://127.0.0.1:1"), "keyrelay-test", clock), []

    async def ask(_client: object) -> None:
        asked.append(1)
        raise ConnectionError

    async def tried() -> int:
        with suppress(Gone):
            await engine.run(ask)
        return len(asked)

    assert await tried() == 1
    clock.be_set(by)
    assert await tried() == 1
    clock.advance(PAUSE_SECONDS)
    assert await tried() == 2
    await engine.aclose()


async def test_a_database_of_the_cache_that_failed(clock: FakeClock, by: float) -> None:
    """It rests for as long as otherwise."""
    lane = Lane("test", lambda: sqlite3.connect(":memory:"), clock)

    def fails(_connection: sqlite3.Connection) -> int:
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(StoreError, match="disk I/O"):
        await lane.run(fails)
    clock.be_set(by)
    with pytest.raises(StoreError, match="rests"):
        await lane.run(lambda _connection: 1)
    clock.advance(REST_SECONDS)
    assert await lane.run(lambda _connection: 1) == 1
    await lane.close()


def test_how_often_the_log_is_told(
    clock: FakeClock, by: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Of what the disk refuses, and of connections that are too many."""
    trouble, door = Trouble(clock), Door(DoorRules(0, 0), clock)

    def happens() -> int:
        trouble.tell("keep an answer", OSError("full"))
        door.enter("192.0.2.1")
        return len(caplog.records)

    assert happens() == 2
    clock.be_set(by)
    assert happens() == 2
    clock.advance(max(QUIET_SECONDS, TELL_SECONDS))
    assert happens() == 4
