"""Real calls decide how a service fares (issue: health)."""

from __future__ import annotations

import pytest

from proxy.catalogue import CATALOGUE
from proxy.errors import AnswerTooLarge, RedirectRefused, UpstreamError, UpstreamTimeout
from proxy.health.tally import IN_A_ROW
from proxy.health.watch import FAILURES, HOSTS, PAIRS, Health, Probed
from proxy.record import CallRecord
from proxy.services import CurrentServices, load_services
from tests.support.records import CALL

PROVIDER = "api.openai.com"
BASIS = CALL._replace(
    began=1000.0,
    token="caller",
    token_id="t",
    method="GET",
    verdict="bypass",
    received=0,
    sent=2,
    seconds=0.5,
    waited=0.0,
    upstream_seconds=0.2,
    answered=None,
)
DOWN = BASIS._replace(status=502, code="upstream_unreachable", verdict="", upstream_seconds=None)


@pytest.fixture
def health() -> Health:
    return Health(CurrentServices(load_services()))


def watch(health: Health, *records: CallRecord) -> tuple[str, bool | None]:
    for record in records:
        health.observe(record)
    standing = health.standing("default", "openai")
    return standing.state, standing.healthy


def test_nothing_is_known_before_the_first_call(health: Health) -> None:
    """Neither healthy nor ill."""
    assert watch(health) == ("unknown", None)
    assert list(health.gauge()) == []


def test_one_failure_does_not_condemn(health: Health) -> None:
    """Several in a row do, and one success heals."""
    assert watch(health, BASIS) == ("healthy", True)
    assert watch(health, *[DOWN] * (IN_A_ROW - 1)) == ("healthy", True)
    assert watch(health, DOWN) == ("unhealthy", False)
    assert list(health.gauge()) == [("openai", False)]
    assert watch(health, BASIS) == ("healthy", True)
    assert list(health.gauge()) == [("openai", True)]


def test_a_success_between_failures_forgives_them(health: Health) -> None:
    """In a row is meant."""
    assert watch(health, *[DOWN, DOWN, BASIS] * 5, DOWN, DOWN)[0] == "healthy"


@pytest.mark.parametrize("status", [500, 502, 503, 529])
def test_an_upstreams_5xx_is_a_failure(health: Health, status: int) -> None:
    """The provider blames itself."""
    assert watch(health, *[BASIS._replace(status=status)] * IN_A_ROW) == ("unhealthy", False)


@pytest.mark.parametrize("status", [400, 404, 409, 422, 429])
def test_the_callers_own_mistakes_say_nothing(health: Health, status: int) -> None:
    """Neither do they condemn, nor do they heal."""
    mistake = BASIS._replace(status=status)
    assert watch(health, BASIS, *[mistake] * 10)[0] == "healthy"
    assert watch(health, *[DOWN] * IN_A_ROW, mistake)[0] == "unhealthy"


@pytest.mark.parametrize("status", [401, 403])
def test_a_provider_that_refuses_our_key_is_a_state_of_its_own(health: Health, status: int) -> None:
    """Not that of a provider that is down; a caller's own key says nothing."""
    own = BASIS._replace(status=status, key="")
    assert watch(health, BASIS, *[own] * 10) == ("healthy", True)
    refused = BASIS._replace(status=status)
    assert watch(health, *[refused] * (IN_A_ROW - 1))[0] == "healthy"
    assert watch(health, refused) == ("key_refused", False)
    assert watch(health, BASIS)[0] == "healthy"


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "hit"},
        {"verdict": "collapsed", "code": "upstream_incomplete"},
        {"status": 0, "verdict": ""},
        {"status": 429, "code": "rate_limited", "verdict": ""},
        {"status": 503, "code": "unavailable", "verdict": ""},
        {"status": 504, "code": "call_timeout", "verdict": ""},
        {"status": 502, "code": "redirect_refused", "verdict": ""},
        {"service": ""},
    ],
)
def test_what_reached_no_upstream_is_not_counted(health: Health, change: dict[str, object]) -> None:
    """Hits, followers, callers that hung up, refusals of ours."""
    health.observe(BASIS._replace(**change))  # type: ignore[arg-type]
    assert health.standing("default", "openai").places == ()


def test_every_code_that_blames_the_upstream_counts() -> None:
    """A new error of that family is either here or named below, with a reason."""
    family = {kind for kind in CATALOGUE if issubclass(kind, UpstreamError | UpstreamTimeout)}
    answered = {RedirectRefused, AnswerTooLarge}  # the provider works, what it sends is unwanted
    assert {kind.code for kind in family - answered} == FAILURES


def test_a_backend_that_fails_does_not_condemn_the_provider(health: Health) -> None:
    """A tenant's own code is not the provider's fault; without calls to it, it is all we know."""
    backend = DOWN._replace(host="backend.test")
    assert watch(health, *[backend] * IN_A_ROW)[0] == "unhealthy"
    assert watch(health, BASIS)[0] == "healthy"
    places = health.standing("default", "openai").places
    assert [(place.tally.host, place.own) for place in places] == [
        (PROVIDER, True),
        ("backend.test", False),
    ]


def test_tenants_do_not_see_each_other(health: Health) -> None:
    """Counters are a tenant's own; only the gauge is over all."""
    assert watch(health, BASIS, *[DOWN._replace(tenant="other")] * IN_A_ROW)[0] == "healthy"
    assert health.called("other") == {"openai"}
    assert list(health.gauge()) == [("openai", False)]


def test_counts_and_latency_are_kept(health: Health) -> None:
    """Calls, errors, the last latency and an average that follows."""
    watch(health, BASIS, DOWN, BASIS._replace(upstream_seconds=0.7))
    [(tally, _)] = health.standing("default", "openai").places
    assert (tally.calls, tally.errors, tally.trouble) == (3, 1, "upstream_unreachable")
    assert tally.latency == 0.7
    assert tally.average == pytest.approx(0.3)
    assert tally.checked == 1000.5


def test_probes_count_apart_from_calls(health: Health) -> None:
    """They decide the state as calls do, and are no calls of anybody's."""
    for _ in range(IN_A_ROW):
        health.probed("default", "openai", PROVIDER, Probed(2000.0, "upstream_timeout"))
    standing = health.standing("default", "openai")
    assert (standing.state, standing.heard_of_provider) == ("unhealthy", 2000.0)
    [(tally, _)] = standing.places
    assert (tally.calls, tally.errors, tally.probes) == (0, 0, IN_A_ROW)
    health.probed("default", "openai", PROVIDER, Probed(2001.0, 200))
    assert health.standing("default", "openai").state == "healthy"


def test_memory_is_bounded(health: Health) -> None:
    """However many tenants call however many hosts, the newest are remembered."""
    for number in range(HOSTS + 5):
        health.observe(BASIS._replace(host=f"h{number}.test"))
    assert len(health.standing("default", "openai").places) == HOSTS
    for number in range(PAIRS + 5):
        health.observe(BASIS._replace(tenant=f"t{number}"))
    assert health.called("t0") == health.called("default") == frozenset()
    assert health.called(f"t{PAIRS + 4}") == {"openai"}
