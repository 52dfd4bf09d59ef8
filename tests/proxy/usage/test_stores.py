"""Usage as it is kept, in SQLite or PostgreSQL: rows and their sums, what is forgotten."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import ceil, floor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.record import CallRecord
from proxy.usage import CallRow, Part, Sums, UsageStore, Which
from proxy.usage.latency import bucket
from proxy.usage.sqlite import SWEPT
from proxy.usage.store import DAY, HOUR, Keep
from proxy.usage.usage import SAME
from tests.proxy.usage.conftest import NOON, Another, a_row

MIDNIGHT = NOON - DAY / 2
EVER = Which(0, MIDNIGHT * 2)
FORGETTING = Keep(calls=EVER.until, most_calls=0, hours=EVER.until, days=EVER.until)
NAMES = st.sampled_from(("a", "b", "é"))


@st.composite
def rows(draw: st.DrawFn) -> CallRow:
    """Calls of three days by a few names."""
    seconds = draw(st.floats(0, 4000, allow_nan=False))
    hit, joined, went = draw(st.sampled_from(((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0))))
    price = draw(st.none() | st.integers(0, 1000).map(lambda n: n / 8))
    return a_row(
        began=MIDNIGHT + draw(st.floats(-DAY, 2 * DAY, exclude_max=True)),
        tenant=draw(NAMES),
        token=draw(NAMES),
        token_id=draw(NAMES),
        service=draw(NAMES),
        status=draw(st.sampled_from((0, 200, 204, 302, 401, 500))),
        cut=draw(st.booleans()),
        received=draw(st.integers(0, 10**6)),
        sent=draw(st.integers(0, 10**12)),
        seconds=seconds,
        upstream_seconds=draw(st.none() | st.floats(0, 10)),
        hit=hit,
        joined=joined,
        went=went,
        tokens_input=draw(st.integers(0, 10**6)),
        tokens_output=draw(st.integers(0, 10**6)),
        tokens_cached=draw(st.integers(0, 10**6)),
        cost=price,
        saved=price,
    )


def told_apart(row: CallRow, part: Part) -> tuple[Any, ...]:
    if part == "token":
        return row.token, row.token_id
    steps = {"day": DAY, "hour": HOUR}
    if part in steps:
        return (int(row.began // steps[part]) * steps[part],)
    return (getattr(row, part),)


def brute(found: Sequence[CallRow], by: Sequence[Part]) -> dict[tuple[Any, ...], list[CallRow]]:
    groups = defaultdict(list)
    for row in found:
        groups[tuple(name for part in by for name in told_apart(row, part))].append(row)
    return groups


def same(sums: Sums, group: list[CallRow]) -> None:
    """The sums are those of the calls, one by one."""
    went = [row for row in group if row.went]
    assert sums.calls == len(group)
    assert sums.successful == sum(row.successful for row in group)
    assert (sums.hits, sums.joined) == (sum(r.hit for r in group), sum(r.joined for r in group))
    assert sums.upstream == len(went)
    assert (sums.received, sums.sent) == (
        sum(r.received for r in group),
        sum(r.sent for r in group),
    )
    assert sums.seconds == pytest.approx(sum(row.seconds for row in group))
    assert sums.upstream_seconds == pytest.approx(sum(r.upstream_seconds or 0 for r in group))
    assert sums.slowest == max(row.seconds for row in group)
    assert sums.tokens_input == sum(row.tokens_input for row in went)
    assert sums.tokens_output == sum(row.tokens_output for row in went)
    assert sums.tokens_cached == sum(row.tokens_cached for row in went)
    spared = [row.tokens_input + row.tokens_output for row in group if row.hit or row.joined]
    assert sums.tokens_saved == sum(spared)
    prices = [row.cost for row in group if row.cost is not None]
    assert sums.cost == (sum(prices) if prices else None)
    assert sums.saved == sums.cost
    counts: dict[int, int] = defaultdict(int)
    for row in group:
        counts[bucket(row.seconds)] += 1
    assert sums.latencies == counts


GROUPINGS: list[tuple[Part, ...]] = [
    (),
    ("day",),
    ("hour",),
    ("token",),
    ("service",),
    ("tenant", "day"),
    ("day", "token", "service"),
]


@given(batches=st.lists(st.lists(rows(), max_size=20), min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=20)
def test_sums_are_those_of_the_calls_one_by_one(
    another: Another, batches: list[list[CallRow]]
) -> None:
    """Whatever came together in a batch, and by whatever the sums are told apart."""
    store = another()
    for batch in batches:
        store.write(batch)
    everything = [row for batch in batches for row in batch]
    for by, found in zip(GROUPINGS, store.sums(EVER, *GROUPINGS), strict=True):
        groups = brute(everything, by)
        told = [tuple(one.group.values()) for one in found]
        assert told == sorted(groups, key=lambda key: tuple(map(_octets, key)))
        for one in found:
            same(one, groups[tuple(one.group.values())])
    store.close()


def _octets(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


@given(
    found=st.lists(rows(), min_size=1, max_size=20),
    since=st.integers(-30, 60),
    hours=st.integers(0, 60),
    whose=st.tuples(st.none() | NAMES, st.none() | NAMES, st.none() | NAMES, st.none() | NAMES),
)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=20)
def test_a_part_of_the_time_and_of_the_callers_is_told(
    another: Another,
    found: list[CallRow],
    since: int,
    hours: int,
    whose: tuple[str | None, str | None, str | None, str | None],
) -> None:
    """Whole hours, put together of days and hours; by tenant, service, token, token id."""
    store = another()
    store.write(found)
    tenant, service, token, token_id = whose
    begin = MIDNIGHT + since * HOUR
    which = Which(begin + 5, begin + hours * HOUR + 5, tenant, service, token, token_id)
    meant = [
        row
        for row in found
        if floor(which.since / HOUR) <= row.began / HOUR < ceil(which.until / HOUR)
        and tenant in (None, row.tenant)
        and service in (None, row.service)
        and token in (None, row.token, row.token_id)
        and token_id in (None, row.token_id)
    ]
    total, by_hour = store.sums(which, (), ("hour",))
    assert [one.calls for one in total] == ([len(meant)] if meant else [])
    assert sum(one.calls for one in by_hour) == len(meant)
    for one in total:
        same(one, meant)
    store.close()


def test_a_record_and_its_row_begin_alike() -> None:
    """What is copied as it is stands in the same places."""
    assert CallRow._fields[1:SAME] == CallRecord._fields[1:SAME]
    assert (CallRow._fields[0], CallRecord._fields[0]) == ("call", "id")


def test_more_rows_than_one_statement_takes_are_all_written(store: UsageStore) -> None:
    """In portions, none twice."""
    store.write([a_row(call=f"c{number}", service=f"s{number % 3}") for number in range(300)])
    assert [one.calls for one in store.sums(EVER, ("service",))[0]] == [100, 100, 100]
    assert {row.call for row in store.calls(EVER, "newest", 1000)} == {f"c{n}" for n in range(300)}


def test_single_calls_are_told_in_three_orders(store: UsageStore) -> None:
    """The newest, the slowest, the most expensive; as they were written."""
    calls = [
        a_row(call="a", began=NOON, seconds=1.0, cost=3.0),
        a_row(call="b", began=NOON + 1, seconds=3.0, cost=None),
        a_row(call="c", began=NOON + 2, seconds=2.0, cost=5.0, tenant="other"),
    ]
    store.write(calls)

    def told(order: Any, **more: Any) -> list[str]:
        return [row.call for row in store.calls(Which(NOON, NOON + 10, **more), order, 2)]

    assert told("newest") == ["c", "b"]
    assert told("slowest") == ["b", "c"]
    assert told("costliest") == ["c", "a"]
    assert told("costliest", tenant="default") == ["a", "b"]
    assert store.calls(EVER, "newest", 1) == [calls[2]]


# What is forgotten.


def keep(**more: float) -> Keep:
    return Keep(
        calls=more.get("calls", 0),
        most_calls=int(more.get("most_calls", 10**9)),
        hours=more.get("hours", 0),
        days=more.get("days", 0),
    )


def test_single_calls_go_first_then_hours_then_days(store: UsageStore) -> None:
    """Each for its own time; the sums stay what they were."""
    store.write([a_row(began=NOON - DAY * number) for number in range(4)])
    store.sweep(keep(calls=NOON - DAY * 1.5))
    assert len(store.calls(EVER, "newest", 10)) == 2
    assert [one.calls for one in store.sums(EVER, ())[0]] == [4]
    store.sweep(keep(hours=NOON - DAY * 1.5))
    assert len(store.sums(EVER, ("hour",))[0]) == 2
    assert len(store.sums(EVER, ("day",))[0]) == 4
    store.sweep(keep(days=MIDNIGHT - DAY))
    assert [one.group["day"] for one in store.sums(EVER, ("day",))[0]] == [MIDNIGHT - DAY, MIDNIGHT]
    assert [sum(one.latencies.values()) for one in store.sums(EVER, ("day",))[0]] == [1, 1]


def test_a_period_is_kept_until_all_of_it_is_old(store: UsageStore) -> None:
    """A day of which one hour is young enough stays whole."""
    store.write([a_row(began=MIDNIGHT)])
    store.sweep(keep(hours=MIDNIGHT + HOUR - 1, days=MIDNIGHT + DAY - 1))
    assert len(store.sums(EVER, ("hour",))[0]) == len(store.sums(EVER, ("day",))[0]) == 1
    store.sweep(keep(hours=MIDNIGHT + HOUR + 1, days=MIDNIGHT + DAY + 1))
    assert store.sums(EVER, ("hour",), ("day",), ()) == [[], [], []]


def test_of_too_many_calls_the_newest_stay(store: UsageStore) -> None:
    """Whoever floods us fills no disk; also where more go than in one step."""
    store.write([a_row(call=str(number)) for number in range(SWEPT + 20)])
    store.sweep(keep(most_calls=10))
    newest = [str(SWEPT + number) for number in range(19, 9, -1)]
    assert [row.call for row in store.calls(EVER, "newest", 1000)] == newest
    assert [one.calls for one in store.sums(EVER, ())[0]] == [SWEPT + 20]
