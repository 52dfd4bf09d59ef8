"""What a server leaves in the audit log: bounded in rate, written together, never a value."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest

from proxy.destinations import parse_destination
from proxy.errors import DestinationRefused, Forbidden, KeyMissing
from proxy.grant import Client
from proxy.trail import AT_ONCE, EVERY_SECONDS, KINDS, REFUSED, Trail, shown
from tests.support.clock import FakeClock
from tests.support.records import CALL
from vault import AuditEntry, Holdings, StoreUnavailable, Token

PLACE = parse_destination("https://metadata.example/x?key=1")


class Book:
    """An audit log in memory; it can be away, and it can break."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.batches = 0
        self.away: Exception | None = None
        self.asked = asyncio.Event()

    async def note(self, entries: Iterable[AuditEntry]) -> None:
        self.asked.set()
        if self.away is not None:
            raise self.away
        self.batches += 1
        self.entries += entries

    @property
    def said(self) -> list[tuple[str, str, str, str]]:
        return [(one.actor, one.action, one.tenant, one.subject) for one in self.entries]


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def trail(book: Book, clock: FakeClock) -> Trail:
    return Trail(book, clock)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def refuse(trail: Trail, tenant: str = "default", times: int = 1) -> None:
    for _ in range(times):
        trail.refuse(Client("ann", Holdings(tenant)), PLACE, DestinationRefused("No."))


async def test_a_refused_destination_is_told_by_its_origin(book: Book, trail: Trail) -> None:
    """Who, where to, why; nothing of path and query, which may hold anything."""
    client = Client("ann", Holdings("research"))
    trail.refuse(client, PLACE, DestinationRefused("No."))
    trail.refuse(client, PLACE, Forbidden("No."))
    trail.refuse(client, PLACE, KeyMissing("No."))  # may go there, but has no key yet
    await trail.flush()
    assert book.said == [
        ("token ann", REFUSED, "research", "https://metadata.example:443 destination_refused"),
        ("token ann", REFUSED, "research", "https://metadata.example:443 forbidden"),
    ]


async def test_short_lived_tokens_and_sign_outs_are_told(book: Book, trail: Trail) -> None:
    """By whose token and for which services; a page that asks for thousands leaves a few rows."""
    parent = Token("calcalcalcal", "shop", "default", "call", 0.0)
    trail.short_lived(parent, parent)
    for _ in range(1000):
        trail.short_lived(parent, replace(parent, services=frozenset({"openai", "groq"})))
    trail.signed_out("default", parent.id)
    await trail.flush()
    assert book.said[:2] == [
        ("token shop", "token short-lived", "default", "every service"),
        ("token shop", "token short-lived", "default", "groq, openai"),
    ]
    assert len(book.entries) == AT_ONCE + 1
    assert book.said[-1] == ("token calcalcalcal", "page sign-out", "default", "calcalcalcal")


async def test_calls_that_are_refused_later_are_told_too(book: Book, trail: Trail) -> None:
    """For their syntax, or for where a name leads; each once."""
    for code, host in (
        ("bad_destination", ""),
        ("destination_ip_prohibited", "rebound.example"),
        ("destination_refused", "rebound.example"),
        ("destination_refused", ""),  # told by `refuse`
        ("upstream_error", "rebound.example"),
        ("", "rebound.example"),
    ):
        trail.observe(CALL._replace(code=code, host=host, token="key:openai/default", tenant="b"))
    await trail.flush()
    assert book.said == [
        ("key:openai/default", REFUSED, "b", "bad_destination"),
        ("key:openai/default", REFUSED, "b", "rebound.example destination_ip_prohibited"),
        ("key:openai/default", REFUSED, "b", "rebound.example destination_refused"),
    ]


async def test_a_flood_leaves_a_few_rows_and_its_size(
    book: Book, trail: Trail, clock: FakeClock
) -> None:
    """And takes nothing from other tenants."""
    refuse(trail, times=10_000)
    refuse(trail, "research")
    await trail.flush()
    assert len(book.entries) == AT_ONCE + 1
    assert book.batches == 1
    await trail.flush()
    assert book.batches == 1
    clock.advance(EVERY_SECONDS)
    await trail.flush()
    assert book.said[-1] == ("serve", REFUSED, "default", f"{10_000 - AT_ONCE} more, left out")
    refuse(trail, times=5)
    clock.advance(3 * EVERY_SECONDS)
    refuse(trail, times=2)
    await trail.stop()
    assert [subject.split()[0] for *_, subject in book.said[-3:]] == [
        "https://metadata.example:443",
        "https://metadata.example:443",
        "5",
    ]


async def test_however_many_tenants_there_are_memory_is_bounded(trail: Trail) -> None:
    """So is what waits."""
    for number in range(KINDS + 50):
        refuse(trail, f"t{number}", times=2)
    assert len(trail._allowed) == KINDS
    assert len(trail._waiting) == 4096


async def test_what_the_vault_does_not_take_waits(book: Book, trail: Trail) -> None:
    """In order."""
    book.away = StoreUnavailable("away")
    trail.signed_in("default", "ann")
    await trail.flush()
    trail.not_signed_in("a malformed token")
    book.away = None
    await trail.flush()
    assert book.said == [
        ("token ann", "page sign-in", "default", "ann"),
        ("serve", "page sign-in refused", "", "a malformed token"),
    ]


async def test_what_could_not_be_written_to_the_end_is_told(
    book: Book, trail: Trail, caplog: pytest.LogCaptureFixture
) -> None:
    """As at an older one of two releases: how many, and why."""
    book.away = StoreUnavailable("a newer release has changed the vault")
    refuse(trail, times=3)
    await trail.start()
    await trail.stop()
    assert caplog.messages == [
        "3 entries of the audit log are lost: a newer release has changed the vault"
    ]


async def test_what_there_is_no_room_for_is_counted(clock: FakeClock) -> None:
    """Also what had been taken in already when a write failed."""

    class Slow(Book):
        async def note(self, entries: Iterable[AuditEntry]) -> None:
            self.asked.set()
            await asyncio.sleep(0)
            await super().note(entries)

    book = Slow()
    trail = Trail(book, clock)
    for number in range(200):
        refuse(trail, f"t{number}", times=AT_ONCE)
    book.away = StoreUnavailable("away")
    writing = asyncio.ensure_future(trail.flush())
    await book.asked.wait()
    for number in range(200, 400):
        refuse(trail, f"t{number}", times=AT_ONCE)
    await writing
    assert len(trail._waiting) <= 4096
    book.away = None
    await trail.stop()
    left_out = [int(one[3].split()[0]) for one in book.said if one[3].endswith("left out")]
    assert len(book.entries) - len(left_out) + sum(left_out) == 400 * AT_ONCE


async def test_it_writes_by_itself_and_ends_with_nothing_left(
    book: Book, trail: Trail, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also after something that nobody foresaw, of which nothing but the kind is told."""
    monkeypatch.setattr("proxy.trail.FLUSH_SECONDS", 0.01)
    book.away = RuntimeError("sk-secret")
    refuse(trail)
    await trail.start()
    await book.asked.wait()
    book.away = None
    refuse(trail)
    await trail.stop()
    assert len(book.entries) == 1
    assert "could not be written: unexpected RuntimeError" in caplog.text
    assert "sk-secret" not in caplog.text


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("api.openai.com", "api.openai.com"),
        ("sk-0123456789abcdefghijklm.example", "sk-01234~.example"),
        ("2001:db8:1111:2222:3333:4444:5555:6666", "2001:db8:1111:2222:3333:4444:5555:6666"),
    ],
)
def test_a_long_label_is_told_by_its_beginning(host: str, told: str) -> None:
    """It could be a key that somebody put into the wrong place."""
    assert shown(host) == told
