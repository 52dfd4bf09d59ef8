"""The store that workers share."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proxy.cache.entry import Found, Miss, StoreError
from proxy.errors import UpstreamIncomplete
from proxy.workers import companion
from proxy.workers.companion import Companion, Meeting
from proxy.workers.link import Away
from proxy.workers.store import SharedStore
from tests.proxy.cache.conftest import NOW
from tests.proxy.cache.stores import Octets, an_entry, body_of, sending
from tests.proxy.workers.conftest import Office, until
from vault import Purge

LARGE = os.urandom(600_000)


class Above:
    """A memory above the store, by what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def forget(self, key: bytes) -> None:
        self.told.append(key)

    def remember(self, hears: bool) -> None:
        self.told.append(hears)


async def a_store(office: Office) -> tuple[SharedStore, Above]:
    companion, above = office.worker(), Above()
    store = SharedStore(companion)
    store.stand_under(above)
    await companion.start()
    await store.start()
    return store, above


async def put(store: SharedStore, body: bytes, value: bytes = b"", **changes: Any) -> None:
    entry = an_entry(size=len(body), **changes)
    await store.put(entry, sending(value), Octets(body))


async def got(store: SharedStore, value: bytes = b"", key: bytes = b"k") -> Any:
    found = await store.get(key, sending(value), NOW)
    return await body_of(found) if isinstance(found, Found) else found


async def test_what_one_keeps_the_other_finds(office: Office) -> None:
    """Small, empty and in pieces; its stats too."""
    (one, _), (other, _) = await a_store(office), await a_store(office)
    assert await got(other) is Miss.ABSENT
    for body in (b"small", b"", LARGE):
        await put(one, body)
        assert await got(other) == body
    assert (await other.stats()).entries == 1
    await one.close()
    await other.close()


async def test_what_one_replaces_the_others_forget(office: Office) -> None:
    """Each is told of the key before the writer is told that it is written; nobody of his own."""
    (one, above), (other, below) = await a_store(office), await a_store(office)
    await put(one, b"old")
    await put(one, b"new")
    await until(lambda: below.told.count(b"k") == 2)
    assert b"k" not in above.told
    assert await got(other) == b"new"
    await one.close()
    await other.close()


async def test_an_answer_that_is_replaced_while_it_is_asked_for_is_asked_for_again(
    office: Office,
) -> None:
    """It would be remembered above, and nobody would tell that it is over."""
    store, _ = await a_store(office)
    await put(store, b"old")
    asking = asyncio.create_task(got(store))
    await asyncio.sleep(0)
    store._replaced(b"k")
    assert await asking == b"old"
    assert not store._asked
    await store.close()


async def test_answers_that_vary_are_told_apart(office: Office) -> None:
    """The coordinator asks for what a request sent in names that it was not told of; an answer
    takes the place of those that would have answered its request, whatever they vary by."""
    (one, _), (other, _) = await a_store(office), await a_store(office)
    await put(one, b"for a", b"a", vary=b"x", variant=b"a")
    await put(one, b"for b", b"b", vary=b"x", variant=b"b")
    assert [await got(other, value) for value in (b"a", b"b")] == [b"for a", b"for b"]
    assert await got(other, b"c") is Miss.VARIES
    later, _ = await a_store(office)
    await put(later, b"for all", b"a")
    assert (await other.stats()).entries == 2
    await put(later, LARGE, b"a", key=b"l", vary=b"y", variant=b"a")
    fresh, _ = await a_store(office)
    await put(fresh, LARGE[1:], b"a", key=b"l")
    assert await got(fresh, b"a", b"l") == LARGE[1:]
    for store in (one, other, later, fresh):
        await store.close()


async def test_purges_and_uses_reach_the_store(office: Office) -> None:
    """A purge at once, uses with others."""
    store, _ = await a_store(office)
    await put(store, b"body")
    store.touch(b"k", NOW + 1)
    await store.close()
    await store.purge(Purge(NOW + 5))
    assert await got(store) is Miss.ABSENT
    await store.sweep(NOW)


async def test_what_several_workers_purge_is_looked_for_once(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks later waits for the first; what failed counts for nothing."""
    (one, _), (other, _) = await a_store(office), await a_store(office)
    asked, real = list[tuple[Purge, ...]](), office.store.purge

    async def noted(*purges: Purge) -> None:
        asked.append(purges)
        if len(asked) == 1:
            raise StoreError("locked")
        await real(*purges)

    monkeypatch.setattr(office.store, "purge", noted)
    await put(one, b"body")
    old, new = (Purge(NOW + 5, "t"), Purge(NOW + 5, "u")), Purge(NOW + 6, "t")
    with pytest.raises(StoreError):
        await one.purge(*old)
    await asyncio.gather(one.purge(*old), other.purge(*old))
    assert await got(other) is Miss.ABSENT
    await other.purge(*old, new)
    assert asked == [old, old, (new,)]
    for store in (one, other):
        await store.close()


async def test_a_body_that_breaks_is_not_kept(office: Office) -> None:
    """Neither half of it, nor is what comes after it lost."""
    store, _ = await a_store(office)
    with pytest.raises(ZeroDivisionError):
        await store.put(
            an_entry(size=len(LARGE)), sending(), Octets(LARGE, breaks=ZeroDivisionError())
        )
    await put(store, b"whole")
    assert await got(store) == b"whole"
    await store.close()


async def test_without_a_coordinator_nothing_is_kept_or_remembered(office: Office) -> None:
    """StoreError at once, a cut body in the midst of one; with the next one all is as before."""
    store, above = await a_store(office)
    await put(store, LARGE)
    found = await store.get(b"k", sending(), NOW)
    assert isinstance(found, Found)
    await office.gone()
    with pytest.raises(UpstreamIncomplete):
        await body_of(found)
    for asked in (store.start(), store.stats(), got(store), put(store, b"more")):
        with pytest.raises(StoreError):
            await asked
    assert above.told[-1] is False
    await office.back()
    assert above.told[-1] is True
    assert await got(store) == LARGE
    await store.close()


async def test_a_call_that_goes_away_lets_its_answer_go(office: Office) -> None:
    """The coordinator reads nothing for anybody who is not there."""
    store, _ = await a_store(office)
    await put(store, LARGE)
    asking = asyncio.create_task(store.get(b"k", sending(), NOW))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await put(store, b"new")
    assert await got(store) == b"new"
    await until(lambda: not office.store._pins._readers)
    await store.close()


async def test_nobody_is_heard_without_the_secret(office: Office) -> None:
    """Whoever else may reach the socket."""
    other = Companion(Meeting(office.meeting.path, b"x" * 32, 2), 9)
    with pytest.raises(Away):
        await other._connect()


async def test_one_that_hangs_is_left_altogether(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has asked a coordinator in vain leaves no connection behind that it would find later."""
    monkeypatch.setattr(companion, "PATIENCE", 0.05)
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(tmp_path / "hangs"))
        listener.listen()
        one = Companion(Meeting(tmp_path / "hangs", b"s" * 32, 2), 1)
        with pytest.raises(Away):
            await one._connect()
        connection = listener.accept()[0]
        with closing(connection), connection.makefile("rb") as heard:
            connection.settimeout(20)
            assert b"hello" in await asyncio.to_thread(heard.read)
