"""A lost store: what was seen is served for a bounded, visible time; then nothing is."""

from __future__ import annotations

import pytest

from proxy.outage import Gap, Outage
from tests.support.clock import FakeClock

LOST = OSError("gone")


class Vault:
    def __init__(self) -> None:
        self.lapses = 0

    def lapse(self) -> None:
        self.lapses += 1


async def test_what_was_seen_is_served_for_so_long_and_no_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """From the first look-up that fails, and told in the log: begin, lapse and end."""
    clock, vault = FakeClock(), Vault()
    outage = Outage(clock, 300, vault.lapse)
    outage.begin()
    outage.end()
    assert outage.gap() == Gap(0, None)
    for seconds in (0, 100, 199):
        clock.advance(seconds)
        outage.begin()
        outage.fail(LOST)
        await outage.look()
        await outage.look()
    assert (vault.lapses, outage.gap()) == (0, Gap(299, 1))
    clock.advance(1)
    for _ in range(5):
        await outage.look()
    assert (vault.lapses, outage.gap()) == (1, Gap(300, 0))
    outage.begin()
    outage.fail(LOST)
    await outage.look()
    assert vault.lapses == 1
    outage.end()
    assert outage.gap() == Gap()
    told = [record.getMessage() for record in caplog.records]
    assert [text.partition(";")[0].partition(":")[0] for text in told] == [
        "the vault can't be read",
        "the vault could not be read for too long",
        "the vault is read again, after 300.0 s",
    ]
    assert "300 s more" in told[0]


async def test_a_look_up_that_never_comes_back_is_an_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A disk that hangs says no error."""
    clock, vault = FakeClock(), Vault()
    outage = Outage(clock, 300, vault.lapse)
    outage.begin()
    assert outage.gap() == Gap()
    clock.advance(20)
    assert outage.gap() == Gap(20, None)
    clock.advance(280)
    await outage.look()
    assert vault.lapses == 0
    await outage.look()
    assert (vault.lapses, outage.gap().left) == (1, 0)
    outage.end()
    assert "read again" in caplog.text


async def test_a_process_that_stood_still_has_no_outage() -> None:
    """Found late once is not enough: the look-up under way has had no chance to end."""
    clock, vault = FakeClock(), Vault()
    outage = Outage(clock, 300, vault.lapse)
    for _ in range(3):
        outage.begin()
        clock.advance(10_000)
        await outage.look()
        outage.end()
        await outage.look()
    assert vault.lapses == 0


async def test_another_bound_holds_at_once() -> None:
    """Also while nothing can be read."""
    clock, vault = FakeClock(), Vault()
    outage = Outage(clock, 300, vault.lapse)
    outage.begin()
    outage.fail(LOST)
    clock.advance(60)
    outage.become(60)
    assert outage.gap() == Gap(60, 0)
    await outage.look()
    await outage.look()
    assert vault.lapses == 1


def test_an_anchor_that_lags_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """And once more when it has caught up."""
    outage = Outage(FakeClock(), 300, Vault().lapse)
    for why in ("", "the anchor is not there", "the anchor is not there", "", ""):
        outage.lag(why)
    assert [record.getMessage() for record in caplog.records] == [
        "changes are made, but the anchor is not there",
        "the anchor knows of every change again",
    ]
