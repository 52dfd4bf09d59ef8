"""Which limits hold for whom."""

from __future__ import annotations

from proxy.grant import Allowance
from proxy.limits.grammar import Rate, parse_rate
from proxy.limits.rules import Budget, Rule, plan, who
from tests.proxy.limits.conftest import granted

ONE, TWO, THREE, FOUR = (parse_rate(f"{n}/minute") for n in (1, 2, 3, 4))


def amounts(rules: list[Rule], **grant: object) -> list[tuple[str, int]]:
    found = plan(who(granted(**grant)), rules)  # type: ignore[arg-type]
    return [*found.quotas] if found is not None else []


def calls(*rates: Rate, **whose: str) -> Rule:
    return Rule(calls=rates, **whose)


def test_the_nearest_word_counts() -> None:
    """The token's own, else the entry with its name, else that for its kind, else that for each."""
    rules = [calls(ONE, token="*"), calls(TWO, token="key:*"), calls(THREE, token="bob")]
    assert amounts(rules) == [("token-minute", 1)]
    assert amounts(rules, token="bob") == [("token-minute", 3)]
    assert amounts(rules, token="bob", calls=("4/minute",)) == [("token-minute", 4)]
    assert amounts(rules, token="key:openai/default") == [("key-minute", 2)]
    assert amounts(rules[:1], token="key:openai/default") == [("key-minute", 1)]
    own = calls(FOUR, token="key:openai/default")
    assert amounts([*rules, own], token="key:openai/default") == [("key-minute", 4)]


def test_who_signs_in_with_one_issuer_has_a_word_for_each() -> None:
    """Behind that for the one, before that for all; a handed-out key is none of them."""
    rules = [calls(ONE, token="*"), calls(TWO, token="login/*"), calls(THREE, token="login/bob")]
    assert amounts(rules, token="login/ann/lee") == [("token-minute", 2)]
    assert amounts(rules, token="login/bob") == [("token-minute", 3)]
    assert amounts(rules, token="other/bob") == [("token-minute", 1)]
    assert amounts(rules, token="login") == [("token-minute", 1)]
    assert amounts(rules, token="key:openai/default") == [("key-minute", 1)]


def test_an_empty_entry_means_no_limit() -> None:
    """For the one that it names."""
    rules = [calls(ONE, token="*"), calls(token="bob")]
    assert amounts(rules, token="bob") == []


def test_an_entry_of_one_tenant_comes_before_one_of_any() -> None:
    """Names of tokens are a tenant's own."""
    rules = [calls(ONE, token="ann"), calls(TWO, token="ann", tenant="research")]
    assert amounts(rules) == [("token-minute", 1)]
    assert amounts(rules, tenant="research") == [("token-minute", 2)]


def test_a_tenant_and_a_service_count_beside() -> None:
    """Token and tenant, all services and this one: each has its own window."""
    rules = [
        calls(ONE, tenant="*"),
        calls(TWO, tenant="research"),
        calls(THREE, token="*", service="openai"),
        calls(FOUR, tenant="*", service="openai"),
        calls(FOUR, tenant="*", service="cohere"),
        Rule(tenant="*", upstream_calls=(ONE,)),
    ]
    assert amounts(rules, tenant="research", calls=("9/day", "cohere=8/day")) == [
        ("token-day", 9),
        ("tenant-minute", 2),
        ("token-openai-minute", 3),
        ("tenant-openai-minute", 4),
        ("tenant-upstream-minute", 1),
    ]


def test_the_counters_of_two_never_meet() -> None:
    """Tenants, tokens of one name, handed-out keys of one name, services, kinds of calls."""
    rules = [
        Rule(token="*", calls=(ONE,), upstream_calls=(ONE,)),
        Rule(tenant="*", service="openai", calls=(ONE,)),
    ]
    grants = [
        granted(token, tenant)
        for token in ("ann", "bob", "key:openai/default")
        for tenant in ("a", "b")
    ]
    plans = [found for grant in grants if (found := plan(who(grant), rules)) is not None]
    bills = [bill for one in plans for bill in one.bills]
    keys = [window.key for bill in bills for window in bill.windows]
    tokens = [key for key in keys if not key.startswith("tenant/")]
    assert len(set(tokens)) == 2 * (2 + 2)  # an id is of one tenant only
    assert {key for key in keys if key.startswith("tenant/")} == {
        "tenant/a/openai/calls/60",
        "tenant/b/openai/calls/60",
    }


def test_a_budget_is_the_tokens_own_or_an_entrys() -> None:
    """None at all: none."""
    rules = [Rule(token="*", budget=5)]
    assert plan(who(granted()), []) is None
    assert amounts(rules) == [("budget", 5)]
    assert amounts(rules, budget=0) == [("budget", 0)]


def test_a_number_of_calls_is_the_tokens_own() -> None:
    """With its windows, in one bill; a short-lived token that has a number too pays two."""
    own = {"calls": ("9/day",), "budget": 3, "ever": 7}
    assert amounts([], **own) == [("token-day", 9), ("calls", 7), ("budget", 3)]
    short = Allowance("serial", 2, 1e12)
    found = plan(who(granted(**own, allowance=short)), [])
    assert found is not None
    names = [name for name, _ in found.quotas]
    assert names == ["short-lived", "token-day", "calls", "budget"]
    assert [len(found.calls), len(found.bills)] == [2, 3]
    first, second = found.calls
    assert (first.allowance, first.budget) == (short, None)
    assert (second.allowance, second.budget) == (None, Budget("id-ann", 7, ever=True))
    assert amounts([], allowance=short) == [("short-lived", 2)]
