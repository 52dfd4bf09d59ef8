"""The settings of sign-in tokens: whose are taken, with which keys, and what they may."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator

from proxy.addresses import REGISTERED_LITERAL_MAY_BE, as_literal, classify
from proxy.config.section import Section
from proxy.config.surroundings import Name, ServiceName
from proxy.config.units import Seconds, parse_seconds
from proxy.destinations import Target, parse_destination, parse_registration, reachable
from proxy.errors import RelayError
from proxy.narrowing import canonical
from vault import DEFAULT_TENANT, Narrowing

LONGEST_LEEWAY: Final = 300
_T = TypeVar("_T")
_WORD: Final = re.compile(r"[!-~]{1,512}", re.ASCII)

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


def key_place(url: str) -> Target:
    """A URL that keys may be fetched from; raises ValueError.

    Whoever changes the keys on their way is whoever they like: TLS, or this machine or network.
    """
    try:
        target = parse_destination(url)
        reachable(parse_registration(target.url.partition("?")[0]))
    except RelayError as error:
        raise ValueError(error.remark) from None
    literal = as_literal(target.host)
    near = target.host == "localhost" or (
        literal is not None and classify(literal) in REGISTERED_LITERAL_MAY_BE
    )
    if target.scheme == "http" and not near:
        raise ValueError("expected https://; http:// only to localhost or a private address")
    return target


def _place(url: str) -> str:
    return key_place(url).url


def _word(text: str) -> str:
    if _WORD.fullmatch(text):
        return text
    raise ValueError("expected 1 to 512 printable characters without a space")


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _some(found: tuple[_T, ...]) -> tuple[_T, ...]:
    if not found:
        raise ValueError("expected one at least")
    return found


def _claim(said: object) -> str | bool:
    if isinstance(said, str | bool):
        return said
    raise ValueError("expected true, false or text; a number in quotes")


def _leeway(value: object) -> float:
    seconds = parse_seconds(value)
    if seconds > LONGEST_LEEWAY:
        raise ValueError("expected 5m at most")
    return seconds


Word = Annotated[str, Field(strict=True), AfterValidator(_word)]
Words = Annotated[tuple[Word, ...], BeforeValidator(_one_or_more), AfterValidator(_some)]


class IssuerEntry(Section):
    """One issuer whose tokens are taken, and what whoever shows one may do.

    `jwks` None: where the keys are is found from `issuer` (OpenID Connect Discovery). `claims`:
    what else a token must say.
    """

    name: Name
    issuer: Word
    audience: Words
    algorithms: Annotated[tuple[Algorithm, ...], AfterValidator(_some)] = ("RS256", "ES256")
    jwks: Annotated[str, AfterValidator(_place)] | None = None
    tenant: Name = DEFAULT_TENANT
    tenant_claim: Word | None = None
    tenants: Mapping[Word, Name] = Field(default_factory=dict)
    claims: Mapping[Word, Annotated[str | bool, PlainValidator(_claim)]] = Field(
        default_factory=dict
    )
    services: tuple[ServiceName, ...] = ()
    hosts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    leeway: Annotated[float, BeforeValidator(_leeway)] = 30.0
    max_age: Seconds | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.tenant_claim is None) == bool(self.tenants):
            raise ValueError("expected tenant_claim: and tenants: (its values) together")
        if self.tenants and "tenant" in self.model_fields_set:
            raise ValueError("expected either tenant: or tenant_claim:")
        if self.jwks is None:
            self._check_discovery()
        for member in Narrowing._fields:
            canonical(member, getattr(self, member))
        return self

    def _check_discovery(self) -> None:
        try:
            plain = key_place(self.issuer).query is None
        except ValueError as error:
            raise ValueError(f"expected jwks:, for issuer: leads to no keys: {error}") from None
        if not plain:
            raise ValueError("expected jwks:, for issuer: is a URL with a query")

    @property
    def narrowing(self) -> Narrowing:
        """Where and how its tokens may call, in canonical form."""
        pairs = ((member, getattr(self, member)) for member in Narrowing._fields)
        return Narrowing(*(canonical(member, said) for member, said in pairs))


def each_named_once(entries: tuple[IssuerEntry, ...]) -> tuple[IssuerEntry, ...]:
    """Raises ValueError where two entries have one name, or are for one issuer."""
    for member in ("name", "issuer"):
        for text, times in Counter(getattr(one, member) for one in entries).items():
            if times > 1:
                raise ValueError(f"expected one entry with the {member} {text}, found {times}")
    return entries
