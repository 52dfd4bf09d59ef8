"""What every store does: on disk, and in Redis."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from proxy.cache.entry import Found, Miss, Store, StoreError
from proxy.errors import UpstreamIncomplete
from tests.proxy.cache.conftest import NOW
from tests.proxy.cache.stores import (
    LARGE,
    SIZES,
    Octets,
    an_entry,
    chunks,
    found,
    in_redis,
    on_disk,
    put,
    sending,
)
from tests.proxy.cache.test_sqlite import change, rows
from tests.support.engines import RunningRedis
from vault.sealing import DataKey, KeyedSealer


@dataclass(frozen=True)
class Kind:
    """`opened`: the store, each time as another process would; `pieces`: how many of large answers
    are there; `spoil`: changes the last one of a large answer."""

    opened: Callable[..., AbstractAsyncContextManager[Store]]
    pieces: Callable[[], int]
    spoil: Callable[[], object]


@pytest.fixture(params=["disk", "redis"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    if request.param == "disk":
        return Kind(
            partial(on_disk, tmp_path),
            lambda: len(rows(tmp_path, "SELECT * FROM chunks")),
            lambda: change(tmp_path, "UPDATE chunks SET sealed = x'00' WHERE number = 2"),
        )
    redis: RunningRedis = request.getfixturevalue("redis")
    return Kind(
        partial(in_redis, redis),
        lambda: len(chunks(redis)),
        lambda: redis.say("set", chunks(redis)[2], "nonsense"),
    )


async def test_an_entry_comes_back_as_it_went(kind: Kind) -> None:
    """Status, fields in order with all their octets, times."""
    fields = ((b"b", b"\xff\x00"), (b"a", b"1"), (b"a", b""))
    async with kind.opened() as store:
        await put(store, fields=fields, status=203, made_at=NOW - 5)
        answer = await store.get(b"k", sending(), NOW)
    assert isinstance(answer, Found)
    assert answer.entry == an_entry(
        requested_at=NOW, made_at=NOW - 5, expires_at=NOW + 10, status=203, fields=fields
    )
    assert answer.body == b"body"


async def test_entries_survive_a_restart(kind: Kind) -> None:
    """Contract 6: of any size, whole."""
    async with kind.opened() as store:
        for size in SIZES:
            await put(store, b"%d" % size, LARGE[:size])
    async with kind.opened() as store:
        for size in SIZES:
            assert await found(store, b"%d" % size) == LARGE[:size]


async def test_an_entry_is_over_at_its_time(kind: Kind) -> None:
    """Contract 6: its own time must be ahead."""
    async with kind.opened() as store:
        assert await found(store) is Miss.ABSENT
        await put(store)
        assert await found(store, now=NOW + 9.9) == b"body"
        assert await found(store, now=NOW + 10) is Miss.OVER
        assert await found(store, now=NOW - 1000) == b"body"


async def test_variants_stand_side_by_side(kind: Kind) -> None:
    """RFC 9111 section 4.1; what would have answered is replaced."""
    async with kind.opened() as store:
        await put(store, body=b"plain")
        await put(store, body=b"one", vary=b"user-agent", variant=b"1")
        await put(store, body=b"two", vary=b"user-agent", variant=b"2")
        assert await found(store, value=b"1") == b"one"
        assert await found(store, value=b"2") == b"two"
        assert await found(store, value=b"3") is Miss.VARIES
        await put(store, body=b"new", vary=b"user-agent", variant=b"2", expires_at=NOW + 5)
        assert await found(store, value=b"2", now=NOW + 6) is Miss.OVER
        assert (await store.stats()).entries == 2


async def test_names_to_vary_by_may_change(kind: Kind) -> None:
    """What would have answered is replaced, whatever it varied by: the caller is asked for it."""
    async with kind.opened() as store:
        await put(store, vary=b"user-agent", variant=b"1")
        await put(store, vary=b"x-other", variant=b"1")
        await store.put(an_entry(size=3), sending(b"1"), Octets(b"new"))
        assert (await store.stats()).entries == 1
        assert await found(store, value=b"1") == b"new"


async def test_another_data_key_opens_nothing(kind: Kind) -> None:
    """It is an error of the store, and not an answer."""
    async with kind.opened() as store:
        await put(store)
    async with kind.opened(sealer=KeyedSealer(DataKey.random("cache"), {})) as store:
        with pytest.raises(StoreError):
            await found(store)


async def test_a_later_chunk_that_does_not_open_cuts_and_ends_the_entry(kind: Kind) -> None:
    """A cut answer never looks whole, and is not served again."""
    async with kind.opened() as store:
        await put(store, body=LARGE)
        kind.spoil()
        with pytest.raises(UpstreamIncomplete):
            await found(store)
        assert await found(store) is Miss.ABSENT


async def test_half_an_entry_is_never_there(kind: Kind) -> None:
    """Contract 6: half a response never survives: it is invisible, and gone after the failure."""
    async with kind.opened() as store:
        with pytest.raises(ValueError, match="broken"):
            await store.put(
                an_entry(size=len(LARGE)), sending(), Octets(LARGE, ValueError("broken"))
            )
        assert await found(store) is Miss.ABSENT
        assert kind.pieces() == 0


async def test_a_failed_put_leaves_the_old_entry(kind: Kind) -> None:
    """Contract 6: if the refresh fails, the old entry stays."""
    async with kind.opened() as store:
        await put(store, body=b"old")
        with pytest.raises(ValueError, match="broken"):
            await store.put(
                an_entry(size=len(LARGE)), sending(), Octets(LARGE, ValueError("broken"))
            )
        assert await found(store) == b"old"
