"""The goals that were set, and what a run says of each; pure.

All costs are CPU of the server's processes per request, as ratios within one run, so that the
machine's speed cancels out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.figures import Figures
from bench.summary import Rows

KB, MB = 1e3, 1e6


@dataclass(frozen=True, slots=True)
class Goal:
    """What is wanted of a path: `least` must be reached, `aim` is hoped for. None: not measured.

    `more` is for numbers that should be large ("100 x lighter"); all others should be small.
    """

    path: str
    unit: str
    value: float | None
    least: float | None
    aim: float | None = None
    more: bool = False

    @property
    def verdict(self) -> str:
        """In one word or two."""
        if self.value is None:
            return "not measured"
        if self.aim is not None and self._holds(self.aim):
            return "aim reached"
        if self.least is None:
            return "" if self.aim is None else "aim not reached"
        return "reached" if self._holds(self.least) else "not reached"

    def _holds(self, wanted: float) -> bool:
        assert self.value is not None
        return self.value >= wanted if self.more else self.value <= wanted


def goals(rows: Rows, figures: Figures) -> list[Goal]:
    """Every goal, in the order of the table."""
    return [*_costs(rows), *_watched(rows), *_latency(figures), *_memory(figures), *_start(figures)]


def _watched(rows: Rows) -> Iterator[Goal]:
    """With limits, metrics, usage and the log line on."""
    for case, path, least in (("hit", "hit from memory", 4.0), ("forward", "plain forward", 6.0)):
        for server, what in (("keyrelay-quiet", "quiet"), ("keyrelay-limited", "all on")):
            value = _ratio(rows, (server, case), ("uvicorn", "bare"))
            most = least if server == "keyrelay-limited" else None
            yield Goal(f"{path}, {what}", "x bare uvicorn", value, most)


def _costs(rows: Rows) -> Iterator[Goal]:
    bare, hit, forward, sse = (
        ("uvicorn", "bare"),
        ("keyrelay", "hit"),
        ("keyrelay", "forward"),
        ("keyrelay", "sse"),
    )
    yield Goal("hit from memory", "x bare uvicorn", _ratio(rows, hit, bare), 3.0)
    litellm = _ratio(rows, ("litellm-cache", "hit"), hit)
    yield Goal("hit from memory", "x lighter than LiteLLM's", litellm, 100, more=True)
    yield Goal("hit from memory", "x varnish", _ratio(rows, hit, ("varnish", "hit")), None, 2.0)
    yield Goal("plain forward", "x bare uvicorn", _ratio(rows, forward, bare), 5.0)
    portkey = _ratio(rows, ("portkey", "forward"), forward)
    yield Goal("plain forward", "x lighter than Portkey", portkey, 10, more=True)
    litellm = _ratio(rows, ("litellm", "forward"), forward)
    yield Goal("plain forward", "x lighter than LiteLLM", litellm, 75, more=True)
    yield Goal("plain forward", "x nginx", _ratio(rows, forward, ("nginx", "forward")), None, 4.0)
    yield Goal("SSE, per chunk", "x bare uvicorn's request", _ratio(rows, sse, bare), 1.0, 0.5)


def _latency(figures: Figures) -> Iterator[Goal]:
    found = figures.latency
    path = "added latency at half load"
    p50, p99 = (found.added_p50 / 1e3, found.added_p99 / 1e3) if found else (None, None)
    yield Goal(path, "ms, p50", p50, 0.5, 0.2)
    yield Goal(path, "ms, p99", p99, 2.0, 1.0)


def _memory(figures: Figures) -> Iterator[Goal]:
    slow, huge = figures.slow, figures.huge
    path = "1,000 slow streams at once"
    yield Goal(path, "kB each", slow.octets_each / KB if slow else None, 100, 40)
    yield Goal(path, "dropped", float(slow.dropped) if slow else None, 0)
    yield Goal("1 GB download", "MB more", huge.down_grown / MB if huge else None, 32, 8)
    yield Goal("1 GB upload", "MB more", huge.up_grown / MB if huge else None, 32, 8)


def _start(figures: Figures) -> Iterator[Goal]:
    found = figures.start
    path = "cold start to first answer"
    yield Goal(path, "s", found.seconds if found else None, 1.2, 0.8)
    yield Goal("idle", "MB in memory", found.idle / MB if found else None, 110, 80)


def _ratio(rows: Rows, of: tuple[str, str], to: tuple[str, str]) -> float | None:
    if of not in rows or to not in rows or not rows[to].cpu:
        return None
    return rows[of].cpu / rows[to].cpu
