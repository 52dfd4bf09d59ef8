"""Limits as text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import parse as library_parse

from proxy.limits.grammar import Limit, Rate, in_order, parse_limit, parse_rate

UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800, "month": 2592000}
amounts = st.integers(1, 10**9)
units = st.sampled_from(list(UNITS))


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("60/minute", Rate(60, 60, "minute")),
        ("60 per minute", Rate(60, 60, "minute")),
        (" 1000 / Days ", Rate(1000, 86400, "day")),
        ("100/5 minutes", Rate(100, 300, "5minutes")),
        ("100 per 5minutes", Rate(100, 300, "5minutes")),
        ("1/1 hour", Rate(1, 3600, "hour")),
    ],
)
def test_a_rate_can_be_written_in_several_ways(text: str, rate: Rate) -> None:
    """With a slash or `per`, in one or in several units, in any case."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    [
        *("", "60", "/minute", "60/", "0/minute", "60/0 minutes", "-1/day", "1.5/day"),
        *("60/fortnight", "60perminute", "1e3/day", "10000000000/day", "1/367 days"),
        *("6٣/minute", "60/minute;1/day"),
    ],
)
def test_everything_else_is_refused_with_an_example(text: str) -> None:
    """No number without a period, no zero, nothing longer than a year."""
    with pytest.raises(ValueError, match="expected a limit such as 60/minute"):
        parse_rate(text)


@settings(deadline=None)
@given(amounts, st.integers(1, 12), units, st.sampled_from(["/", " per "]), st.booleans())
def test_what_was_read_reads_the_same_again(
    amount: int, times: int, unit: str, between: str, plural: bool
) -> None:
    """The canonical text is a fixed point."""
    rate = parse_rate(f"{amount}{between}{times} {unit}{'s' * plural}")
    assert (rate.amount, rate.seconds) == (amount, times * UNITS[unit])
    assert parse_rate(str(rate)) == rate


@settings(deadline=None)
@given(amounts, st.integers(1, 9), st.sampled_from([u for u in UNITS if u != "week"]))
def test_the_library_reads_the_same(amount: int, times: int, unit: str) -> None:
    """Where it knows the unit."""
    text = f"{amount} per {times} {unit}"
    item, rate = library_parse(text), parse_rate(text)
    assert (item.amount, item.get_expiry()) == (rate.amount, rate.seconds)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_a_limit_or_a_value_error(text: str) -> None:
    """Never another failure; and what is a limit has a canonical text."""
    try:
        limit = parse_limit(text)
    except ValueError:
        return
    assert parse_limit(str(limit)) == limit


def test_a_limit_can_be_for_one_service() -> None:
    """Its name comes first."""
    assert parse_limit("openai=60/minute") == Limit("openai", Rate(60, 60, "minute"))
    for text in ("=60/minute", "Open AI=60/minute", "a=b=60/minute"):
        with pytest.raises(ValueError, match="openai=60/minute for one service"):
            parse_limit(text)


def test_several_limits_stand_in_order_and_differ_in_their_period() -> None:
    """Two numbers for one period contradict each other."""
    day, minute, other = map(parse_limit, ("9/day", "1/minute", "openai=1/minute"))
    assert in_order([day, other, minute, day]) == (minute, day, other)
    with pytest.raises(ValueError, match=r"one limit for each period, found 1/minute and 2/60sec"):
        in_order([minute, parse_limit("2/60 seconds")])
