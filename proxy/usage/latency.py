"""Durations in buckets whose bounds grow by a fixed factor, so that sums of them tell percentiles.

Four buckets to a doubling: a percentile is told within 19 percent of the true one. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log2
from typing import Final

SHORTEST: Final = 0.0001
"""Seconds up to which everything is in the first bucket."""

LAST: Final = 100
"""The number of the last bucket: longer than 50 minutes."""

_STEPS: Final = 4


def bucket(seconds: float) -> int:
    """Which bucket a duration falls into: 0 up to SHORTEST, then n up to SHORTEST * 2 ** (n/4)."""
    if seconds <= SHORTEST:
        return 0
    return min(int(_STEPS * log2(seconds / SHORTEST)) + 1, LAST)


def quantile(share: float, counts: Mapping[int, int], longest: float) -> float | None:
    """Seconds that this share of the durations did not exceed; None where there are none.

    Inside a bucket they count as evenly spread (on the scale that grows by factors); `longest` is
    the longest of all.
    """
    total = sum(counts.values())
    if not total:
        return None
    rank = share * total
    below = 0
    for number in sorted(counts):
        if below + counts[number] >= rank:
            inside = max(rank - below, 0.0) / counts[number]
            return min(_bound(number - 1 + inside), longest)
        below += counts[number]
    return longest


def _bound(number: float) -> float:
    """Where the bucket of this number ends, in seconds."""
    return float(SHORTEST * 2 ** (number / _STEPS))
