"""Durations in buckets, and percentiles out of them."""

from __future__ import annotations

from collections import Counter
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.usage.latency import LAST, SHORTEST, bucket, quantile

FACTOR = 2 ** (1 / 4)
DURATIONS = st.lists(st.floats(SHORTEST, 3000), min_size=1, max_size=200)


@given(seconds=st.floats(SHORTEST, 2800))
def test_a_bucket_holds_what_lies_between_its_bounds(seconds: float) -> None:
    """Bounds grow by the fourth root of two; rounding may move what lies on one."""
    number = bucket(seconds)
    assert SHORTEST * FACTOR ** (number - 1) <= seconds * 1.000001
    assert seconds <= SHORTEST * FACTOR**number * 1.000001


@pytest.mark.parametrize(
    ("seconds", "number"), [(-1, 0), (0, 0), (SHORTEST, 0), (1e9, LAST), (float("inf"), LAST)]
)
def test_what_is_too_short_or_too_long_has_a_bucket_too(seconds: float, number: int) -> None:
    """The first and the last."""
    assert bucket(min(seconds, 1e300)) == number


@given(durations=DURATIONS, percent=st.sampled_from((1, 50, 90, 99, 100)))
def test_a_percentile_is_told_within_the_width_of_a_bucket(
    durations: list[float], percent: int
) -> None:
    """Against the sorted list; never above the longest."""
    found = quantile(percent / 100, Counter(map(bucket, durations)), max(durations))
    true = sorted(durations)[ceil(len(durations) * percent / 100) - 1]
    assert found is not None
    assert true / FACTOR / 1.000001 <= found <= min(true * FACTOR * 1.000001, max(durations))


def test_of_nothing_there_is_no_percentile() -> None:
    """Rather none than zero."""
    assert quantile(0.5, {}, 0.0) is None
