"""Whether a server is ready: what fails is named, never why (issue: health)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy.health.readiness import KEPT_SECONDS, Readiness, Ready, writes_to
from tests.support.clock import FakeClock


class Part:
    """A part that works or fails as the test says."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error


async def test_what_fails_is_named() -> None:
    """By the part alone; it recovers by itself."""
    clock, vault, cache = FakeClock(), Part(), Part()
    readiness = Readiness({"vault": vault, "cache": cache}, clock)
    assert (await readiness.look()).ready
    cache.error = OSError("/var/lib/keyrelay/cache.db: disk full")
    clock.advance(KEPT_SECONDS)
    assert await readiness.look() == Ready(("cache",))
    cache.error = None
    clock.advance(KEPT_SECONDS)
    assert (await readiness.look()).ready


async def test_a_result_holds_for_all_who_ask_in_the_same_second() -> None:
    """Whoever may ask without a token can't make the disk work."""
    clock, part = FakeClock(), Part()
    readiness = Readiness({"vault": part}, clock)
    found = await asyncio.gather(*[readiness.look() for _ in range(50)])
    assert all(one.ready for one in found)
    assert part.asked == 1
    clock.advance(KEPT_SECONDS)
    await readiness.look()
    assert part.asked == 2


async def test_a_part_that_does_not_answer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that hangs is none."""
    monkeypatch.setattr("proxy.health.readiness.PATIENCE", 0.01)
    forever = asyncio.Event()

    async def hangs() -> None:
        await forever.wait()

    assert await Readiness({"vault": hangs}, FakeClock()).look() == Ready(("vault",))


async def test_going_down_is_not_ready_at_once() -> None:
    """Whatever was found a moment ago; nobody is asked any more."""
    part = Part()
    readiness = Readiness({"vault": part}, FakeClock())
    assert (await readiness.look()).ready
    readiness.stop()
    found = await readiness.look()
    assert (found.ready, found.stopping, part.asked) == (False, True, 1)


async def test_storage_is_a_file_that_is_really_written(tmp_path: Path) -> None:
    """It leaves nothing behind; a folder that is gone fails."""
    await writes_to(tmp_path)()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="gone"):
        await writes_to(tmp_path / "gone")()
