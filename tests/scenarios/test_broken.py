"""Transfers that break and bombs, in short; `make attack` has the whole of it, with figures."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.attack import broken
from tests.attack.broken import Crowd
from tests.attack.traffic import BROKEN, Upstream, bomb, bombing


@pytest.mark.parametrize(
    ("upstream", "crowd"),
    [(Upstream, Crowd(BROKEN, 60, 200)), (bombing, Crowd([bomb], 3, 10))],
    ids=["broken", "bombs"],
)
async def test_each_ends_as_it_should_beside_one_who_is_kind(
    monkeypatch: pytest.MonkeyPatch, upstream: Callable[[], Upstream], crowd: Crowd
) -> None:
    """Who is answered all the while; and nothing of them is left open."""
    monkeypatch.setattr(broken, "TURN_SECONDS", 0.1)
    monkeypatch.setattr(broken, "PAUSE_SECONDS", 0.0)
    async with broken.site(upstream()) as site:
        await broken.warm_up(site.here, 10, 0.0)
        alone, beside, open_for, faults = await broken.by_turns(site, crowd)
        assert faults == []
        assert len(alone.turns) == len(beside.turns) == len(open_for) == 3
        assert (site.upstream.answering, await site.here.connections()) == (0, 0)
