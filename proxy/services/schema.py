"""The members of one entry under `services`, in services.yaml and in keys.yaml alike.

| member | meaning |
|---|---|
| `category` | a word to list it under |
| `hosts` | exact host names, or `*.name` for one label of the tenant's own |
| `base` | where the path form goes; without it https and the first exact host |
| `origin` | a place of your own that counts as the provider: `http://localhost:11434` |
| `in` | `header`, `query`, `basic`, `path`, or `none` where no key is needed |
| `key_name` | name of the field or parameter; for `path` the segment, such as `bot{key}` |
| `prefix` | what stands before the key; `'Bearer '` in `Authorization`, else nothing |
| `username`, `password` | for `basic`; without them `{username}` and `{key}` |
| `after` | for `path`: first segments behind which the key stands, instead of in front |
| `parts` | what a credential is made of: `name: title`, or `name: {title, secret}` |
| `extra` | further fields (for `query`: parameters) with `{part}` or `{host}` in them |
| `also_in_query` | parameters in which the provider accepts the key too |
| `by_host` | `host: {in, key_name, prefix, username, password, extra}` where one host differs |
| `by_version` | `version: {in, ...}` from which on it differs; its field is the first default |
| `backend_header`, `backend_prefix` | how a backend receives the key, if not as the provider does |
| `defaults` | fields written where the caller sent none, such as a version |
| `download_hosts` | where the provider's redirects may lead, without a key |
| `aliases` | other names |
| `probe` | one cheap call that shows whether a key is good: `GET /v1/models` |
| `honour_no_store` | `true`: answers with `no-store` are not kept |
| `note` | a sentence for people |

A keyed service has a secret part called `key`: it is the one that a backend sends back to us.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
RESERVED = frozenset({"https", "http", "server", "proxy"})
PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
HOST_PLACEHOLDER = "host"

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}\.)+(?!\d+$){_LABEL}")
_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TEXT = re.compile(r"[\x20-\x7e]*")
_WORD = re.compile(r"[a-z][a-z0-9_]*")
_PROBE = re.compile(r"(?:GET|HEAD|POST) /[\x21-\x7e]*")
_ORIGIN = re.compile(r"https?://[\x21-\x7e]+")
# Framing and content belong to the call: a service that claimed them would take them from all.
_TAKEN = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "range",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    }
)


def _name(value: str) -> str:
    if not NAME.fullmatch(value) or value in RESERVED:
        raise ValueError(
            "expected a name of a-z, 0-9, _ and -, at most 64 characters,"
            f" that is none of {', '.join(sorted(RESERVED))}"
        )
    return value


def _host(value: str) -> str:
    if len(value) > 253 or not _HOST.fullmatch(value):
        raise ValueError("expected a host name in lower case, without port")
    return value


def _host_or_wildcard(value: str) -> str:
    name = value.removeprefix("*.")
    if name.count(".") == 0:
        raise ValueError("expected a host name in lower case, or one with `*.` in front")
    _host(name)
    return value


def _field(value: str) -> str:
    lowered = value.lower()
    taken = lowered in _TAKEN or lowered.startswith(("proxy-", "x-relay-"))
    if not _FIELD.fullmatch(value) or taken:
        raise ValueError("expected the name of a header field that is free for a service")
    return value


def _text(value: str) -> str:
    if not _TEXT.fullmatch(value):
        raise ValueError("expected printable ASCII characters")
    return value


def _probe(value: str) -> str:
    if not _PROBE.fullmatch(value):
        raise ValueError("expected a method and a path, such as `GET /v1/models`")
    return value


def _origin(value: str) -> str:
    if not _ORIGIN.fullmatch(value):
        raise ValueError("expected a URL such as http://localhost:11434")
    return value


def _part_name(value: str) -> str:
    if not _WORD.fullmatch(value) or value == HOST_PLACEHOLDER:
        raise ValueError("expected a word of a-z, 0-9 and _ that is not `host`")
    return value


ServiceName = Annotated[str, AfterValidator(_name)]
HostName = Annotated[str, AfterValidator(_host)]
HostPattern = Annotated[str, AfterValidator(_host_or_wildcard)]
FieldName = Annotated[str, AfterValidator(_field)]
Text = Annotated[str, AfterValidator(_text)]
PartName = Annotated[str, AfterValidator(_part_name)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class PartEntry(_Strict):
    """One part of a credential; `secret: false` for what may be shown."""

    title: str
    secret: bool = True


class CarrierEntry(_Strict):
    """How a key is carried: the members that `by_host` shares with the service itself."""

    carrier: Literal["header", "query", "basic", "path", "none"] = Field("header", alias="in")
    key_name: Text | None = None
    prefix: Text | None = None
    username: Text | None = None
    password: Text | None = None
    after: tuple[Text, ...] = ()
    extra: dict[str, Text] = {}

    @model_validator(mode="after")
    def _names_fit_the_carrier(self) -> Self:
        if self.carrier in ("query", "path") and not self.key_name:
            raise ValueError(f"`in: {self.carrier}` needs a key_name")
        if self.carrier == "path" and not _segment(self.key_name or ""):
            raise ValueError("key_name: expected one path segment with {key}, such as bot{key}")
        if self.carrier == "header":
            _field(self.key_name or "Authorization")
        if self.carrier != "query":
            for name in self.extra:
                _field(name)
        return self


def _segment(template: str) -> bool:
    rest = template.replace("{key}", "", 1)
    return rest != template and re.fullmatch(r"[A-Za-z0-9._~-]*", rest) is not None


CARRIER_MEMBERS = frozenset(CarrierEntry.model_fields) - {"carrier"} | {
    "in",
    "parts",
    "also_in_query",
    "by_host",
    "by_version",
    "backend_header",
    "backend_prefix",
}


class ServiceEntry(CarrierEntry):
    """One service as a file describes it; every member may be left out where it overrides."""

    category: Text = "custom"
    hosts: tuple[HostPattern, ...] = ()
    base: str | None = None
    origin: Annotated[str, AfterValidator(_origin)] | None = None
    parts: dict[PartName, str | PartEntry] | None = None
    also_in_query: tuple[Text, ...] = ()
    by_host: dict[HostName, CarrierEntry] = {}
    by_version: dict[Text, CarrierEntry] = {}
    backend_header: FieldName | None = None
    backend_prefix: Text = ""
    defaults: dict[FieldName, Text] = {}
    download_hosts: tuple[HostName, ...] = ()
    aliases: tuple[ServiceName, ...] = ()
    probe: Annotated[str, AfterValidator(_probe)] | None = None
    honour_no_store: bool = False
    note: str = ""
