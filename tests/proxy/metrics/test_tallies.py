"""What is counted of calls; whatever a caller writes makes no new series."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.metrics.tallies import (
    CLASSES,
    CODES,
    MOST_KEYS,
    MOST_SERVICES,
    NONE,
    OTHER,
    REJECTIONS,
    SECONDS,
    VERDICTS,
    Spread,
    Tallies,
)
from proxy.record import CallRecord
from tests.support.records import CALL


@pytest.fixture
def tallies() -> Tallies:
    return Tallies({"openai", "groq"}.__contains__)


def test_a_call_is_counted_by_service_class_and_verdict(tallies: Tallies) -> None:
    """Its time, its octets, its key."""
    for _ in range(3):
        tallies.observe(CALL)
    place = ("openai", "2xx", "stored")
    assert {name: sum(spread.counts) for name, spread in tallies.calls.items()} == {place: 3}
    assert tallies.calls[place].total == pytest.approx(0.75)
    service = tallies.services["openai"]
    assert (service.received, service.sent, service.cut) == (30, 6000, 0)
    assert tallies.keys["default", "openai", "default"].calls == 3
    assert tallies.keys["default", "openai", "default"].last == CALL.began
    assert tallies.errors == {}


def test_our_share_is_told_from_the_upstreams_and_the_queues(tallies: Tallies) -> None:
    """160 ms until the header: 100 of the upstream, 50 in the queue, 10 ours."""
    tallies.observe(CALL)
    service = tallies.services["openai"]
    assert service.upstream.total == pytest.approx(0.1)
    assert service.waited.total == pytest.approx(0.05)
    assert service.overhead.total == pytest.approx(0.01)


def test_a_hit_costs_no_upstream_and_uses_no_key(tallies: Tallies) -> None:
    """All its time is ours. A follower's is neither."""
    hit = CALL._replace(verdict="hit", upstream_seconds=None, waited=0.0, answered=0.002)
    tallies.observe(hit)
    tallies.observe(CALL._replace(verdict="collapsed"))
    service = tallies.services["openai"]
    assert (sum(service.upstream.counts), sum(service.overhead.counts)) == (0, 1)
    assert service.overhead.total == pytest.approx(0.002)
    assert tallies.keys == {}


def test_errors_are_counted_by_code_and_limits_apart(tallies: Tallies) -> None:
    """Each code that means a limit is there from the start, at nought."""
    assert set(tallies.rejections()) == REJECTIONS >= {"overloaded", "rate_limited"}
    assert set(tallies.rejections().values()) == {0}
    tallies.observe(CALL._replace(status=503, code="overloaded", verdict=""))
    tallies.observe(CALL._replace(status=502, code="upstream_error", verdict=""))
    assert tallies.errors == {("openai", "overloaded"): 1, ("openai", "upstream_error"): 1}
    assert tallies.rejections()["overloaded"] == 1


def test_who_is_unknown_and_who_hung_up_have_a_place(tallies: Tallies) -> None:
    """No service, no status, no verdict."""
    tallies.observe(CALL._replace(service="", status=0, verdict="", answered=None, cut=True))
    assert list(tallies.calls) == [(NONE, "none", NONE)]
    assert tallies.services[NONE].cut == 1


words = st.text(max_size=8)
records = st.builds(
    CALL._replace,
    service=words | st.sampled_from(["openai", "groq"]),
    status=st.integers(-1000, 100_000),
    verdict=words | st.sampled_from(sorted(VERDICTS)),
    code=words | st.sampled_from(sorted(CODES)),
    host=words,
    method=words,
    token=words,
)


@given(st.lists(records, max_size=30))
def test_labels_come_from_bounded_sets(calls: list[CallRecord]) -> None:
    """Services of the registry, classes, verdicts and codes: whatever the calls say."""
    tallies = Tallies({"openai", "groq"}.__contains__)
    for call in calls:
        tallies.observe(call)
    services = {"openai", "groq", NONE, OTHER}
    assert set(tallies.services) <= services
    for service, group, verdict in tallies.calls:
        assert service in services
        assert group in {*CLASSES, OTHER}
        assert verdict in {*VERDICTS, NONE}
    assert {service for service, _ in tallies.errors} <= services
    assert {code for _, code in tallies.errors} <= {*CODES, OTHER}
    assert sum(sum(spread.counts) for spread in tallies.calls.values()) == len(calls)


def test_an_endless_registry_makes_no_endless_series() -> None:
    """Names that come and go in the configuration are counted together at some point."""
    tallies = Tallies(lambda _name: True)
    for number in range(MOST_SERVICES + 50):
        tallies.observe(CALL._replace(service=f"s{number}", code="bad_call", key=f"k{number}"))
    assert len(tallies.services) == MOST_SERVICES + 1
    assert sum(tallies.calls[OTHER, "2xx", "stored"].counts) == 50
    for number in range(MOST_KEYS):
        tallies.observe(CALL._replace(key=f"further{number}"))
    assert len(tallies.keys) == MOST_KEYS


def test_a_copy_stands_still(tallies: Tallies) -> None:
    """What is read in a thread does not change meanwhile."""
    tallies.observe(CALL._replace(code="bad_call"))
    copy = tallies.copy()
    tallies.observe(CALL._replace(code="bad_call"))
    assert sum(copy.calls["openai", "2xx", "stored"].counts) == 1
    assert copy.services["openai"].sent == 2000
    assert copy.errors == {("openai", "bad_call"): 1}
    assert copy.keys["default", "openai", "default"].calls == 1


@pytest.mark.parametrize(
    ("value", "place"),
    [(0.0, 0), (0.0005, 0), (0.00051, 1), (300.0, len(SECONDS) - 1), (301.0, len(SECONDS))],
)
def test_a_bound_belongs_to_its_bucket(value: float, place: int) -> None:
    """`le` means less or equal."""
    spread = Spread(SECONDS)
    spread.add(value)
    assert spread.counts[place] == 1


def test_a_service_that_is_gone_from_the_registry_keeps_its_name() -> None:
    """A counter that stops is no counter; one that never was in it is among the others."""
    names = {"openai"}
    tallies = Tallies(names.__contains__)
    tallies.observe(CALL)
    names.clear()
    tallies.observe(CALL._replace(status=500))
    tallies.observe(CALL._replace(service="groq"))
    assert set(tallies.services) == {"openai", OTHER}
