"""What waits to be written is bounded, and no answer is lost to the bound without need."""

from __future__ import annotations

from proxy.cache.backlog import WEIGHT, Backlog
from proxy.cache.spool import Spool


def body(*octets: int) -> Spool:
    spool = Spool(100, 1000)
    for count in octets:
        spool.append(bytes(count))
    return spool


def test_small_bodies_count_against_the_memory() -> None:
    """They wait there."""
    backlog = Backlog(memory=100 + WEIGHT, disk=1000)
    with backlog.holding(body(60)):
        assert not backlog.full
        with backlog.holding(body(60)):
            assert backlog.full
        assert not backlog.full


async def test_what_was_spilled_counts_against_the_disk() -> None:
    """It takes no memory, and the store could hold as much."""
    backlog = Backlog(memory=100 + WEIGHT, disk=1000)
    large = body(600)
    await large.spill()
    assert large.held == 0
    with backlog.holding(large):
        assert not backlog.full
        with backlog.holding(large):
            assert backlog.full
    large.close()
