"""Whether claims hold: from whom, for whom, when, and what an entry of `sign_in` asks. Pure.

RFC 7519 section 4.1, RFC 8725 sections 3.8 to 3.10, OpenID Connect Core section 3.1.3.7.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from proxy.config.signin import IssuerEntry

_SUBJECT: Final = re.compile(r"[!-~]{1,255}")
_LARGEST: Final = 10**12


class Wrong(ValueError):
    """A claim does not hold; the words name it and hold nothing of it."""


class Holder(NamedTuple):
    """Whom a token is for. `good_until`: Unix seconds, leeway and longest age in it."""

    subject: str
    tenant: str
    good_until: float


def judge(claims: Mapping[str, Any], entry: IssuerEntry, now: float) -> Holder:
    """Whom claims are for, if they hold now; raises Wrong."""
    if claims.get("iss") != entry.issuer:
        raise Wrong("its issuer (iss) is another")
    if not _meant(claims.get("aud"), entry.audience):
        raise Wrong("it is for somebody else (aud)")
    until = _good_until(claims, entry, now)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        raise Wrong("its subject (sub) is missing, or not 1 to 255 printable characters")
    for name, wanted in entry.claims.items():
        if not _is_or_holds(claims.get(name), wanted):
            raise Wrong(f"its claim {name} is not what the configuration asks for")
    return Holder(subject, _tenant(claims, entry), until)


def _meant(said: object, audience: tuple[str, ...]) -> bool:
    """One text or a list of texts, one of them ours."""
    named = said if isinstance(said, list) else [said]
    return all(isinstance(one, str) for one in named) and any(one in audience for one in named)


def _good_until(claims: Mapping[str, Any], entry: IssuerEntry, now: float) -> float:
    leeway = entry.leeway
    ends, begins, made = (_moment(claims, name) for name in ("exp", "nbf", "iat"))
    if ends is None:
        raise Wrong("it never ends (exp)")
    until = ends + leeway
    for name, moment in (("nbf", begins), ("iat", made)):
        if moment is not None and moment > now + leeway:
            raise Wrong(f"it is not good yet ({name})")
    if entry.max_age is not None:
        if made is None:
            raise Wrong("it does not say when it was made (iat)")
        until = min(until, made + entry.max_age + leeway)
    if until <= now:
        raise Wrong("it is over (exp), or older than max_age")
    return until


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2); None: it is not there."""
    if name not in claims:
        return None
    said: object = claims[name]
    if isinstance(said, int | float) and not isinstance(said, bool) and 0 <= said < _LARGEST:
        return float(said)
    raise Wrong(f"its {name} is no time")


def _is_or_holds(said: object, wanted: str | bool) -> bool:
    """Whether a claim is this, or a list that has it; true is not 1."""
    return any(
        one is wanted or (isinstance(one, str) and one == wanted)
        for one in (said if isinstance(said, list) else [said])
    )


def _tenant(claims: Mapping[str, Any], entry: IssuerEntry) -> str:
    if entry.tenant_claim is None:
        return entry.tenant
    said = claims.get(entry.tenant_claim)
    found = entry.tenants.get(said) if isinstance(said, str) else None
    if found is None:
        raise Wrong(f"its claim {entry.tenant_claim} names none of the tenants")
    return found
