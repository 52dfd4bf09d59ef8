"""The shapes of what is sent to the admin API; its description is made from the same models."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from vault import Credential, Narrowing, Secret, TokenChange, looks_like_token

MOST_ITEMS: Final = 500
LONGEST_KEY: Final = 8192
_YEAR_10000: Final = 253_402_300_800
_DIGITS: Final = re.compile(r"[0-9]{1,15}", re.ASCII)

NAME_PATTERN: Final = "^[a-z0-9][a-z0-9_-]{0,63}$"
TOKEN_NAME_PATTERN: Final = "^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"  # noqa: S105 - a shape
TOKEN_ID_PATTERN: Final = "^[0-9A-Za-z]{12}$"  # noqa: S105 - a shape


def _secret(value: object) -> Secret:
    if isinstance(value, str) and 0 < len(value) <= LONGEST_KEY:
        return Secret(value.encode())
    raise ValueError("expected the text of a key")


def _digits(value: object) -> object:
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise ValueError("expected a whole number")
    return value


def _there(value: object) -> object:
    if value is None:
        raise ValueError("expected what it says, or nothing at all; null is neither")
    return value


def _no_default(schema: dict[str, Any]) -> None:
    del schema["default"]


def _token_name(name: str) -> str:
    if looks_like_token(name.encode()):
        raise ValueError("expected a name, not a token: a name stands in lists and logs")
    return name


def _ahead(when: datetime) -> datetime:
    if not 0 < when.timestamp() < _YEAR_10000:
        raise ValueError("expected a time in the future, before the year 10000")
    return when


def _written(text: object) -> object:
    """A number would be read as seconds of 1970."""
    if isinstance(text, str) and not re.match(r"[0-9]{4}-", text, re.ASCII):
        raise ValueError("expected a time such as 2026-11-21T12:00:00Z")
    return text


def _told_day(day: date) -> date:
    if not date(1971, 1, 1) <= day <= date(9998, 12, 31):
        raise ValueError("expected a day between 1971 and 9998")
    return day


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
TokenName = Annotated[
    str,
    Field(pattern=TOKEN_NAME_PATTERN, description="a name for people; none that begins with kr_"),
    AfterValidator(_token_name),
]
KeyText = Annotated[
    Secret,
    PlainValidator(_secret),
    PlainSerializer(lambda _: None),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "writeOnly": True}),
]
Limit = Annotated[int, Field(ge=1, le=MOST_ITEMS), BeforeValidator(_digits)]
LimitTexts = Annotated[
    list[Annotated[str, Field(min_length=3, max_length=128)]], Field(max_length=64)
]
Bounds = Annotated[list[Annotated[str, Field(min_length=1, max_length=1024)]], Field(max_length=64)]
Moment = Annotated[AwareDatetime, BeforeValidator(_written)]
Day = Annotated[date, AfterValidator(_told_day)]
Role = Literal["call", "read", "admin"]


_LEFT_OUT: Final[Any] = Field(default=None, json_schema_extra=_no_default)


class Asked(BaseModel):
    """What is sent to us: nothing unknown in it, no type read as another."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        defer_build=True,
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )


class Paging(Asked):
    """Which part of a list. `after`: what `next` said in the part before."""

    limit: Limit = 100
    after: Annotated[str, Field(pattern="^[0-9a-f]{16}$")] | None = None


class ServicesAsked(Paging):
    """Which services: those with `text` in a name, an alias, a category or a host."""

    text: Annotated[str, Field(max_length=64)] = ""


class AuditAsked(Paging):
    """Which changes, the newest first."""

    after: Annotated[str, Field(pattern="^[0-9]{1,15}$")] | None = None
    since: Moment | None = Field(default=None, description="none that are older")
    actor: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="by exactly this one, as a row names it: `token ann`"
    )
    action: Annotated[str, Field(pattern="^[a-z][a-z -]{0,63}$")] | None = Field(
        default=None, description="by its first words: `key` stands for every act on a key"
    )


class KeyValue(Asked):
    """A provider key: `value` for a service with one part, `values` by part for others."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["value"]}, {"required": ["values"]}]}
    )

    value: Annotated[KeyText | SkipJsonSchema[None], BeforeValidator(_there)] = _LEFT_OUT
    values: Annotated[dict[str, KeyText] | SkipJsonSchema[None], BeforeValidator(_there)] = (
        _LEFT_OUT
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.value is None) == (self.values is None):
            raise ValueError("expected either value, or values by part")
        return self

    @property
    def credential(self) -> Credential:
        """The parts by name."""
        return self.values if self.values is not None else {"key": self.value or Secret(b"")}


class NewKeyAsked(KeyValue):
    """A key to seal. `hosts`: your own names, for a service with hosts such as *.example.com."""

    service: Name
    alias: Name = "default"
    hosts: Annotated[list[str], Field(max_length=16)] = Field(default_factory=list)


class LimitsAsked(Asked):
    """Limits of a token: `60/minute`, or `openai=1000/day` for one service. `limits` and `calls`
    (in all, ever) count all calls, `upstream_limits` and `budget` (a calendar month) those that go
    out. Where one of these is not empty, only its calls: `hosts`, `paths` and what lies below,
    `methods`, `origins` (of pages)."""

    limits: LimitTexts = Field(default_factory=list)
    upstream_limits: LimitTexts = Field(default_factory=list)
    budget: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    calls: Annotated[int, Field(ge=1, le=10**15)] | None = None
    hosts: Bounds = Field(default_factory=list)
    paths: Bounds = Field(default_factory=list)
    methods: Bounds = Field(default_factory=list)
    origins: Bounds = Field(default_factory=list)

    @property
    def narrowing(self) -> Narrowing:
        """As it was said, not yet canonical."""
        return Narrowing(*(tuple(getattr(self, name)) for name in Narrowing._fields))

    def change(self) -> TokenChange:
        """What was named, and no more."""
        change: TokenChange = {}
        if "limits" in self.model_fields_set:
            change["limits"] = tuple(self.limits)
        if "upstream_limits" in self.model_fields_set:
            change["upstream_limits"] = tuple(self.upstream_limits)
        if "budget" in self.model_fields_set:
            change["budget"] = self.budget
        if "calls" in self.model_fields_set:
            change["calls"] = self.calls
        if "hosts" in self.model_fields_set:
            change["hosts"] = tuple(self.hosts)
        if "paths" in self.model_fields_set:
            change["paths"] = tuple(self.paths)
        if "methods" in self.model_fields_set:
            change["methods"] = tuple(self.methods)
        if "origins" in self.model_fields_set:
            change["origins"] = tuple(self.origins)
        return change


class ShortLivedAsked(Asked):
    """A short-lived token: for `seconds`, for `calls` in all, and for what else is named."""

    seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None
    services: Annotated[list[Name], Field(min_length=1, max_length=64)] | None = None
    hosts: Bounds = Field(default_factory=list)
    paths: Bounds = Field(default_factory=list)
    methods: Bounds = Field(default_factory=list)
    origins: Bounds = Field(default_factory=list)
    calls: Annotated[int, Field(ge=1, le=10**9)] | None = None

    @property
    def narrowing(self) -> Narrowing:
        """As it was said, not yet canonical."""
        return Narrowing(*(tuple(getattr(self, name)) for name in Narrowing._fields))


class TokenChangeAsked(LimitsAsked):
    """What is to be different about a token; what is not named stays."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("expected something that changes: a limit, the budget or a bound")
        return self


class NewTokenAsked(LimitsAsked):
    """A token to issue; without `services` for all of them. `keys`: which alias, by service."""

    name: TokenName
    role: Role = "call"
    services: Annotated[list[Name], Field(min_length=1, max_length=500)] | None = None
    keys: dict[Name, Name] = Field(default_factory=dict)
    expires: Annotated[AwareDatetime, AfterValidator(_ahead)] | None = None

    @property
    def expires_at(self) -> float | None:
        """Unix seconds."""
        return self.expires.timestamp() if self.expires else None


class BackendAsked(Asked):
    """A URL, and all below its path, where the key of a service may go."""

    service: Name
    url: Annotated[str, Field(min_length=1, max_length=8192)]


class UsageAsked(Asked):
    """Which calls: by UTC days, the last 30 where nothing is said, and by service."""

    since: Day | None = Field(default=None, alias="from")
    until: Day | None = Field(default=None, alias="to")
    service: Name | None = None


class PurgeAsked(Asked):
    """Whose answers: of one service, or all."""

    service: Name | None = None
