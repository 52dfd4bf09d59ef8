"""What claims must say (RFC 7519 section 4.1, RFC 8725 sections 3.8 to 3.10)."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.config.signin import IssuerEntry
from proxy.signin.claims import Holder, Wrong, judge

NOW = 1_800_000_000
ISSUER = "https://login.example.com"


def entry(**other: Any) -> IssuerEntry:
    usual = {"name": "login", "issuer": ISSUER, "audience": ("keyrelay", "other-app")}
    return IssuerEntry.model_validate({**usual, **other})


def claims(**other: Any) -> dict[str, Any]:
    usual = {"iss": ISSUER, "aud": "keyrelay", "sub": "auth0|5f7c", "exp": NOW + 600}
    return {name: claim for name, claim in {**usual, **other}.items() if claim is not None}


def test_claims_that_hold_tell_whom_the_token_is_for() -> None:
    """Until the end that it names, with the leeway."""
    assert judge(claims(), entry(), NOW) == Holder("auth0|5f7c", "default", NOW + 630)
    assert judge(claims(aud=["x", "other-app"]), entry(tenant="research"), NOW).tenant == "research"
    assert judge(claims(exp=NOW + 0.5), entry(leeway=0), NOW).good_until == NOW + 0.5


@pytest.mark.parametrize(
    "other",
    [
        {"iss": None},
        {"iss": ISSUER + "/"},
        {"iss": [ISSUER]},
        {"aud": None},
        {"aud": "keyrelays"},
        {"aud": []},
        {"aud": ["keyrelay", 1]},
        {"aud": {"keyrelay": 1}},
        {"exp": None},
        {"exp": NOW - 30},
        {"exp": str(NOW + 600)},
        {"exp": True},
        {"exp": -1},
        {"exp": float("inf")},
        {"exp": 10**400},
        {"nbf": NOW + 31},
        {"nbf": "soon"},
        {"iat": NOW + 31},
        {"iat": []},
        {"sub": None},
        {"sub": ""},
        {"sub": "a b"},
        {"sub": "ü"},
        {"sub": "a\n"},
        {"sub": "s" * 256},
        {"sub": 5},
    ],
)
def test_one_claim_that_does_not_hold_refuses_all(other: dict[str, Any]) -> None:
    """Issuer and audience are exact, the end is required, the times are numbers."""
    with pytest.raises(Wrong) as refused:
        judge(claims(**other), entry(), NOW)
    assert "5f7c" not in str(refused.value)


def test_the_clocks_may_differ_by_the_leeway() -> None:
    """On both ends."""
    assert judge(claims(exp=NOW - 29, nbf=NOW + 30, iat=NOW + 30), entry(), NOW)


def test_an_old_token_is_refused_whatever_its_end() -> None:
    """max_age counts from iat, which is needed then."""
    young = entry(max_age=300, leeway=0)
    assert judge(claims(iat=NOW - 299), young, NOW).good_until == NOW + 1
    for made in (NOW - 300, None):
        with pytest.raises(Wrong):
            judge(claims(iat=made), young, NOW)


def test_a_claim_stands_for_the_tenant() -> None:
    """Only the values that are listed; a list is none of them."""
    mapped = entry(tenant_claim="org", tenants={"acme": "one", "lab": "two"})
    assert judge(claims(org="lab"), mapped, NOW).tenant == "two"
    for other in ("default", "one", ["acme"], None, 1):
        with pytest.raises(Wrong):
            judge(claims(org=other), mapped, NOW)


def test_other_claims_may_be_asked_for() -> None:
    """As they are, or in a list; true is not 1, and no text."""
    strict = entry(claims={"email_verified": True, "groups": "staff"})
    assert judge(claims(email_verified=True, groups=["a", "staff"]), strict, NOW)
    assert judge(claims(email_verified=True, groups="staff"), strict, NOW)
    for verified, groups in ((1, "staff"), ("true", "staff"), (True, "staffs"), (True, None)):
        with pytest.raises(Wrong):
            judge(claims(email_verified=verified, groups=groups), strict, NOW)
