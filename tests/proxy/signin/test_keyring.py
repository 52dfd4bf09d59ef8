"""The keys of one issuer: fetched in good time, seldom, and once for all who wait."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field

import pytest

from proxy.config.signin import IssuerEntry
from proxy.errors import Unavailable
from proxy.signin.fetching import Failed
from proxy.signin.keyring import (
    AGAIN_SECONDS,
    FIRST_SECONDS,
    FRESH_SECONDS,
    STALE_SECONDS,
    Keyring,
)
from tests.support.clock import FakeClock
from tests.support.issuer import Signer, key_set

ENTRY = IssuerEntry.model_validate(
    {"name": "login", "issuer": "https://login.example.com", "audience": "keyrelay"}
)


@dataclass
class Shelf:
    """A keyring, and the issuer that a test makes up. `gate`: answers wait for it."""

    clock: FakeClock = field(default_factory=FakeClock)
    octets: bytes = json.dumps(key_set([Signer()])).encode()
    trouble: Exception | None = None
    fetched: int = 0
    gone: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.ring = Keyring(ENTRY, self, self.clock, self.lost)

    def lost(self) -> None:
        self.gone += 1

    async def keys(self, entry: IssuerEntry) -> bytes:
        assert entry is ENTRY
        self.fetched += 1
        await asyncio.wait_for(self.gate.wait(), 10)
        if self.trouble is not None:
            raise self.trouble
        return self.octets

    async def has(self, kid: str) -> bool:
        return await self.ring.find("ES256", kid) is not None


async def test_keys_are_fetched_by_whoever_needs_them_first() -> None:
    """And then they are there."""
    shelf = Shelf()
    for _ in range(3):
        assert await shelf.has("one")
    assert shelf.fetched == 1


async def test_whoever_comes_meanwhile_waits_for_the_same() -> None:
    """Also where it brings nothing, and whoever of them hangs up."""
    shelf = Shelf()
    shelf.gate.clear()
    many = [asyncio.create_task(shelf.has(kid)) for kid in ("one", "two", "one", "x")]
    while not shelf.fetched:
        await asyncio.sleep(0)
    many[0].cancel()
    await asyncio.sleep(0)
    shelf.gate.set()
    assert await asyncio.gather(*many[1:]) == [False, True, False]
    assert shelf.fetched == 1


async def test_a_flood_of_unknown_keys_is_no_flood_of_fetches() -> None:
    """One fetch in 30 seconds at most; then a new key is found."""
    shelf = Shelf()
    assert await shelf.has("one")
    for number in range(1000):
        assert not await shelf.has(f"unknown-{number}")
    assert shelf.fetched == 1
    shelf.octets = json.dumps(key_set([Signer(), Signer(kid="new")])).encode()
    shelf.clock.advance(AGAIN_SECONDS)
    assert await shelf.has("new")
    for number in range(1000):
        assert not await shelf.has(f"unknown-{number}")
    assert shelf.fetched == 2


async def test_keys_are_fetched_again_before_anybody_waits() -> None:
    """After ten minutes; a key that is gone is told, one that came is not."""
    shelf = Shelf()
    await shelf.ring.refresh_if_due()
    await shelf.ring.refresh_if_due()
    shelf.clock.advance(FRESH_SECONDS)
    shelf.octets = json.dumps(key_set([Signer(), Signer(kid="two", which="b")])).encode()
    await shelf.ring.refresh_if_due()
    assert (shelf.fetched, shelf.gone) == (2, 0)
    shelf.clock.advance(FRESH_SECONDS)
    shelf.octets = json.dumps(key_set([Signer(kid="two", which="b")])).encode()
    await shelf.ring.refresh_if_due()
    assert (shelf.fetched, shelf.gone) == (3, 1)
    assert not await shelf.has("one")


@pytest.mark.parametrize("octets", [b"<html>", b'{"keys":[]}', b'{"keys":[{"kty":"oct"}]}'])
async def test_old_keys_are_used_while_the_issuer_is_down(
    octets: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """For a day, asking again every 30 seconds; said once. An answer without keys is none."""
    shelf = Shelf()
    assert await shelf.has("one")
    shelf.octets = octets
    shelf.clock.advance(FRESH_SECONDS)
    for _ in range(5):
        await shelf.ring.refresh_if_due()
        assert await shelf.has("one")
    assert shelf.fetched == 2
    shelf.clock.advance(AGAIN_SECONDS)
    await shelf.ring.refresh_if_due()
    assert shelf.fetched == 3
    assert len(caplog.records) == 1
    shelf.clock.advance(STALE_SECONDS)
    with pytest.raises(Unavailable):
        await shelf.has("one")
    assert shelf.gone == 0


async def test_keys_that_are_too_old_end_what_they_have_verified() -> None:
    """Nobody who was seen goes on for longer than everybody else; it is told once."""
    shelf = Shelf()
    assert await shelf.has("one")
    shelf.trouble = Failed("it is down")
    for _ in range(3):
        shelf.clock.advance(STALE_SECONDS / 2)
        await shelf.ring.refresh_if_due()
    assert shelf.gone == 1
    with pytest.raises(Unavailable):
        await shelf.has("one")
    shelf.trouble = None
    shelf.clock.advance(FIRST_SECONDS)
    assert await shelf.has("one")
    assert shelf.gone == 1


async def test_without_keys_nobody_is_called_wrong() -> None:
    """It is 503 until they are there, and asked for again after five seconds."""
    shelf = Shelf(trouble=Failed("it answered with status 500"))
    for _ in range(5):
        with pytest.raises(Unavailable) as refused:
            await shelf.has("one")
    assert (shelf.fetched, refused.value.retry_after) == (1, 5)
    shelf.trouble = None
    shelf.clock.advance(FIRST_SECONDS)
    assert await shelf.has("one")


async def test_what_nobody_foresaw_is_told_by_its_kind(caplog: pytest.LogCaptureFixture) -> None:
    """And ends nothing: the next fetch comes."""
    shelf = Shelf(trouble=RuntimeError("the text is nobody's"))
    with pytest.raises(Unavailable):
        await shelf.has("one")
    [line] = caplog.records
    assert line.levelno == logging.WARNING
    assert "RuntimeError" in line.getMessage()
    assert "nobody's" not in caplog.text


async def test_an_end_waits_for_no_issuer() -> None:
    """A fetch that is under way is cut."""
    shelf = Shelf()
    await shelf.ring.close()
    shelf.gate.clear()
    waiting = asyncio.create_task(shelf.has("one"))
    while not shelf.ring.busy:
        await asyncio.sleep(0)
    await shelf.ring.close()
    with pytest.raises(Unavailable):
        await waiting
    assert not shelf.ring.busy
