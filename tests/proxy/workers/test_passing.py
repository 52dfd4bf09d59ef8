"""What workers tell each other."""

from __future__ import annotations

from proxy.admin.session import Sessions
from proxy.record import CallRecord
from proxy.workers.companion import Companion
from proxy.workers.passing import PassedCalls, SharedSessions
from tests.proxy.admin.test_session import ADA, Books, sent_back
from tests.proxy.workers.conftest import Office, until


def a_record(name: str = "id") -> CallRecord:
    texts = name, 1.0, "t", "ann", "id", "openai", "h", "GET", 200, "", "hit", False
    return CallRecord(*texts, 1, 2, 0.1, 0.0, None, None)


async def a_desk(office: Office) -> tuple[Companion, Sessions]:
    companion = office.worker()
    sessions = Sessions(Books(ADA), office.clock)
    sessions.share(SharedSessions(companion))
    await companion.start()
    return companion, sessions


async def test_who_signs_in_at_one_worker_is_known_at_all(office: Office) -> None:
    """At once, also at one that comes later, and with a coordinator that comes later; who signs out
    is gone everywhere."""
    (_, one), (_, other) = await a_desk(office), await a_desk(office)
    fields = sent_back(await one.sign_in(b"kr_ada"))
    assert await other.find(fields) is not None
    _, late = await a_desk(office)
    assert await late.find(fields) is not None
    await office.gone()
    await office.back()
    _, latest = await a_desk(office)
    assert await latest.find(fields) is not None
    latest.sign_out(fields)
    await until(lambda: not one._open and not other._open)
    assert await one.find(fields) is None


async def test_a_session_lasts_where_it_is_used_elsewhere(office: Office) -> None:
    """Half an hour without anything is over, at whichever worker."""
    (_, one), (_, other) = await a_desk(office), await a_desk(office)
    fields = sent_back(await one.sign_in(b"kr_ada"))
    for _ in range(3):
        office.clock.advance(1000)
        assert await other.find(fields) is not None
    assert await one.find(fields) is not None
    office.clock.advance(1801)
    assert await one.find(fields) is None


async def test_without_a_coordinator_people_still_sign_in(office: Office) -> None:
    """Where they are."""
    _, one = await a_desk(office)
    await office.gone()
    fields = sent_back(await one.sign_in(b"kr_ada"))
    assert await one.find(fields) is not None
    one.sign_out(fields)
    assert await one.find(fields) is None
    await office.back()


async def test_calls_of_one_worker_are_seen_at_the_others(office: Office) -> None:
    """Each once, and none at the worker itself."""
    seen: list[list[CallRecord]] = [[], []]
    ends = [office.worker() for _ in seen]
    parts = [PassedCalls(end, (found.append,)) for end, found in zip(ends, seen, strict=True)]
    for end, part in zip(ends, parts, strict=True):
        await end.start()
        await part.start()
    parts[0].observe(a_record("first"))
    await until(lambda: bool(seen[1]))
    assert ([one.id for one in seen[1]], seen[0]) == (["first"], [])
    for part in parts:
        await part.stop()


async def test_counts_of_the_dead_stay(office: Office) -> None:
    """Who only lost the connection counts once; the next coordinator knows the dead as well."""
    one, other = office.worker(), office.worker()
    heard: list[object] = []
    other.on("metrics_dead", heard.append)
    other.on("metrics_report", lambda: ({"calls": 5}, {}, {}))
    for end in (one, other):
        await end.start()
    other.tell("metrics_report", ({"calls": 4}, {}, {}))
    await other.ask("ping")
    reports, dead = await one.ask("metrics_gather", ({"calls": 3}, {}, {}))
    assert (reports, dead) == ([({"calls": 5}, {}, {})], None)
    await one.stop()
    await until(lambda: bool(heard))
    assert heard == [{"calls": 3}]
    await one.start()
    assert await one.ask("metrics_gather", ({"calls": 4}, {}, {})) == (
        [({"calls": 5}, {}, {})],
        None,
    )
    await until(lambda: heard == [{"calls": 3}, None])  # it lives: the next one is told of nobody
