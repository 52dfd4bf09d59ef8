"""Medians, spread and ratios of what the rounds measured; pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one case. CPU and latencies in microseconds; `failed` answers or connections."""

    server: str
    case: str
    cpu: float
    per_second: float
    p50: float
    p99: float
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A case over all rounds: the medians, and the least and most CPU."""

    server: str
    case: str
    cpu: float
    cpu_least: float
    cpu_most: float
    per_second: float
    p50: float
    p99: float
    rounds: int
    failed: int

    @property
    def spread(self) -> float:
        """How far the rounds lie apart, as a part of the median."""
        return (self.cpu_most - self.cpu_least) / self.cpu if self.cpu else 0.0


Rows = dict[tuple[str, str], Row]
"""By server and case."""


def summarise(samples: Iterable[Sample]) -> Rows:
    """One row per server and case, in the order in which they first came."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.server, sample.case), []).append(sample)
    return {key: _row(group) for key, group in groups.items()}


def _row(group: Sequence[Sample]) -> Row:
    costs = [one.cpu for one in group]
    return Row(
        server=group[0].server,
        case=group[0].case,
        cpu=statistics.median(costs),
        cpu_least=min(costs),
        cpu_most=max(costs),
        per_second=statistics.median(one.per_second for one in group),
        p50=statistics.median(one.p50 for one in group),
        p99=statistics.median(one.p99 for one in group),
        rounds=len(group),
        failed=sum(one.failed for one in group),
    )


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least this part of them doesn't exceed (nearest rank)."""
    ordered = sorted(values)
    rank = -(-len(ordered) * part // 1)
    return ordered[max(int(rank), 1) - 1]
