"""The settings that exist, with their defaults; each one documented in keys.example.yaml."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PlainValidator,
    PrivateAttr,
    StrictBool,
    StrictInt,
    Tag,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from proxy.config.engines import RedisUrl, VaultPlace
from proxy.config.networks import HostName, Network
from proxy.config.quotas import DEFAULT_WRONG, OneRate, Rates, WhoseTenant, WhoseToken, each_once
from proxy.config.section import Section
from proxy.config.signin import IssuerEntry, each_named_once
from proxy.config.surroundings import Name, ServiceName, Surroundings, surroundings_of
from proxy.config.traces import CollectorUrl
from proxy.config.units import Octets, Seconds, WithinADay, parse_seconds
from proxy.config.usage import PriceTable, Usage
from proxy.destinations import parse_destination, parse_registration, reachable
from proxy.errors import RelayError
from proxy.narrowing import parse_origin
from vault import DEFAULT_TENANT, Credential, Secret

_T = TypeVar("_T")
LONGEST_GRACE: Final = 86_400
MAPPING: Final = "<mapping>"
LIST: Final = "<list>"
_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]{1,253}", re.ASCII)
_LISTEN: Final = re.compile(
    r"(?:\[([0-9A-Fa-f:.%]+)\]|([A-Za-z0-9._-]{1,253})):([0-9]{1,5})", re.ASCII
)
_FIELD_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^`|~-]+", re.ASCII)


def _public_url(text: str) -> str:
    target = _judged(lambda: parse_destination(text))
    if target.query is not None:
        raise ValueError("expected a URL without a query")
    return target.url.rstrip("/")


def _host(text: str) -> str:
    if _HOST.fullmatch(text):
        return text
    raise ValueError("expected an address or a host name to listen on")


class Listen(NamedTuple):
    """Where something listens; a host without brackets."""

    host: str
    port: int


def _listen(text: object) -> Listen:
    found = _LISTEN.fullmatch(text) if isinstance(text, str) else None
    if found is None or int(found[3]) > 65535:
        raise ValueError("expected an address and a port, such as 127.0.0.1:9090")
    return Listen(found[1] or found[2], int(found[3]))


def _file(path: Path, info: ValidationInfo) -> Path:
    found = surroundings_of(info).near(path)
    if not found.is_file():
        raise ValueError(f"expected a file, found none at {found}")
    return found


def _backend_url(text: str) -> str:
    _judged(lambda: reachable(parse_registration(text)))
    return text


def _judged(parse: Callable[[], _T]) -> _T:
    try:
        return parse()
    except RelayError as error:
        raise ValueError(error.remark) from None


def _grace(value: object) -> float:
    seconds = parse_seconds(value)
    if seconds > LONGEST_GRACE:
        raise ValueError("expected 24h at most: the vault forgets a version before then")
    return seconds


def _field_name(text: str) -> str:
    if _FIELD_NAME.fullmatch(text):
        return text
    raise ValueError("expected the name of a header field in lower case")


def _secret(text: object, info: ValidationInfo) -> Secret:
    if not isinstance(text, str):
        raise ValueError("expected text; a key of digits only needs quotes")
    return surroundings_of(info).key_value(text)


def _each_once(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """Raises where two names of a mapping are one service, by an alias."""
    found = read(value)
    if isinstance(value, dict) and len(found) < len(value):
        raise ValueError("expected each service once, found one again by an alias")
    return found


Count = Annotated[StrictInt, Field(gt=0)]
KeyText = Annotated[Secret, PlainValidator(_secret)]
Origin = Annotated[str, AfterValidator(parse_origin)]
FieldName = Annotated[str, AfterValidator(_field_name)]


Word = Annotated[str, Field(strict=True, min_length=1, pattern=r"^[^\x00]+$")]


MOST_WORKERS: Final = 64


class Server(Section):
    """Where keyrelay listens and how it meets browsers, backends and private authorities."""

    host: Annotated[str, AfterValidator(_host)] = "127.0.0.1"
    port: Annotated[StrictInt, Field(ge=0, le=65535)] = 8000
    workers: Annotated[StrictInt, Field(ge=1, le=MOST_WORKERS)] = 1
    public_url: Annotated[str, AfterValidator(_public_url)] | None = None
    cors_origins: tuple[Origin, ...] = ()
    short_lived_max: WithinADay = 3600.0
    accept_handed_out: StrictBool = True
    handed_out_grace: Annotated[float, BeforeValidator(_grace)] = 3600.0
    vault_grace: WithinADay = 300.0
    upstream_ca: Annotated[Path, AfterValidator(_file)] | None = None
    upstream_transport: Literal["wire", "httpx"] = "wire"
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics_listen: Annotated[Listen, PlainValidator(_listen)] | None = None
    admin_listen: Annotated[Listen, PlainValidator(_listen)] | None = None
    traces_endpoint: CollectorUrl | None = None
    traces_ratio: Annotated[float, Field(strict=True, ge=0, le=1)] = 1.0
    shutdown_grace: Seconds = 10.0
    master_key_command: tuple[Word, ...] = ()
    max_connections: Count = 4096
    max_connections_per_address: Count = 512
    trusted_proxies: tuple[Network, ...] = ()
    hosts: tuple[HostName, ...] = ()
    tls_cert: Annotated[Path, AfterValidator(_file)] | None = None
    tls_key: Annotated[Path, AfterValidator(_file)] | None = None

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("expected tls_cert: and tls_key: together")
        return self


class Cache(Section):
    """Where, how long, how large and by what an answer is kept; `url` None: on this disk."""

    url: Annotated[RedisUrl, Field(exclude=True, repr=False)] = None
    max_ttl: Seconds = 30 * 86400.0
    max_entry_bytes: Octets = 32 * 2**20
    memory_bytes: Octets = 64 * 2**20
    disk_bytes: Octets = 2**30
    tenant_bytes: Octets | None = None
    max_keyed_body_bytes: Octets = 32 * 2**20
    ignore_fields: tuple[FieldName, ...] = ()
    json_whitespace: Literal["keep", "ignore"] = "keep"


class HealthChecks(Section):
    """When a provider is asked, although nobody calls it; None: never."""

    probe_every: Seconds | None = None


class CallLimits(Section):
    """How long one call to an upstream may take, in seconds, and how large its bodies may be."""

    connect_timeout: Seconds = 10.0
    first_byte_timeout: Seconds = 300.0
    idle_timeout: Seconds = 300.0
    total_timeout: Seconds | None = None
    max_request_bytes: Octets | None = None
    max_response_bytes: Octets | None = None


class Concurrency(Section):
    """How many calls may be under way at upstreams at once; None: no bound."""

    total: Count | None = 1000
    per_tenant: Count | None = None
    per_service: Count | None = None
    tenants: Mapping[Name, Count | None] = Field(default_factory=dict)
    services: Annotated[Mapping[ServiceName, Count | None], WrapValidator(_each_once)] = Field(
        default_factory=dict
    )


class QuotaEntry(Section):
    """How many calls a token, or a tenant as a whole, may make; None: nothing about that."""

    token: WhoseToken | None = None
    tenant: WhoseTenant | None = None
    service: ServiceName | None = None
    calls: Rates | None = None
    upstream_calls: Rates | None = None
    budget: Annotated[StrictInt, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.token is None and self.tenant is None:
            raise ValueError("expected token: or tenant:")
        if self.token is not None and self.tenant == "*":
            raise ValueError("expected the name of a tenant beside token:, or none for all")
        if all(one is None for one in (self.calls, self.upstream_calls, self.budget)):
            raise ValueError("expected calls:, upstream_calls: or budget:")
        if self.budget is not None and (self.token is None or self.service is not None):
            raise ValueError("expected budget: for a token and all services together")
        return self

    @property
    def whose(self) -> str:
        """What names an entry."""
        named = {"token": self.token, "tenant": self.tenant, "service": self.service}
        return " ".join(f"{name} {value}" for name, value in named.items() if value is not None)


def _each_whose_once(entries: tuple[QuotaEntry, ...]) -> tuple[QuotaEntry, ...]:
    each_once(entry.whose for entry in entries)
    return entries


class Limits(CallLimits):
    """The bounds of every call, what differs for some `services`, and how many go at once."""

    services: Annotated[Mapping[ServiceName, CallLimits], WrapValidator(_each_once)] = Field(
        default_factory=dict
    )
    concurrency: Concurrency = Concurrency()
    queue_length: Annotated[StrictInt, Field(ge=0)] = 1000
    queue_timeout: Seconds = 30.0
    window: Literal["sliding", "moving"] = "sliding"
    wrong_tokens: OneRate | None = DEFAULT_WRONG
    quotas: Annotated[tuple[QuotaEntry, ...], AfterValidator(_each_whose_once)] = ()

    def by_service(self) -> dict[str, CallLimits]:
        """The bounds of those services that have some of their own, with what they leave out."""
        return {name: self._completed(own) for name, own in self.services.items()}

    def _completed(self, own: CallLimits) -> CallLimits:
        missing = CallLimits.model_fields.keys() - own.model_fields_set
        return own.model_copy(update={name: getattr(self, name) for name in missing})


class KeyEntry(Section):
    """A provider key: `value` for a service with one part, `values` by part for others."""

    service: ServiceName
    alias: Name = "default"
    tenant: Name = DEFAULT_TENANT
    value: KeyText | None = None
    values: Mapping[str, KeyText] | None = None
    hosts: tuple[str, ...] = ()
    default: StrictBool = False

    @model_validator(mode="after")
    def _whole(self, info: ValidationInfo) -> Self:
        if (self.value is None) == (self.values is None):
            raise ValueError("expected either value: or values: (by part)")
        surroundings_of(info).judge_key(self)
        return self

    @property
    def credential(self) -> Credential:
        """The parts by name."""
        return self.values if self.values is not None else {"key": self.value or Secret(b"")}

    @property
    def place(self) -> tuple[str, str, str]:
        """What names a key: tenant, service, alias."""
        return self.tenant, self.service, self.alias


class BackendEntry(Section):
    """A place of the admin's own where a service's key may go."""

    service: ServiceName
    url: Annotated[str, AfterValidator(_backend_url)]
    tenant: Name = DEFAULT_TENANT


def _form_of_keys(value: object) -> str:
    return MAPPING if isinstance(value, dict) else LIST


def _spread(value: object) -> object:
    """`openai: TEXT` and `openai: {value: TEXT}` as whole entries, still by service."""
    if not isinstance(value, dict):
        return value
    return {
        name: {"service": name, **entry}
        if isinstance(entry, dict)
        else {"service": name, "value": entry}
        for name, entry in value.items()
    }


def _apart(keys: _Keys) -> tuple[KeyEntry, ...]:
    """The entries in order; raises where two claim one name, or the default of one service."""
    entries = tuple(keys.values()) if isinstance(keys, dict) else keys
    for what, names in (
        ("key", [entry.place for entry in entries]),
        ("default key", [entry.place[:2] for entry in entries if entry.default]),
    ):
        for name, times in Counter(names).items():
            if times > 1:
                raise ValueError(f"expected one {what} for {'/'.join(name)}, found {times}")
    return entries


def _distinct(backends: tuple[BackendEntry, ...]) -> tuple[BackendEntry, ...]:
    """Raises where two entries are one place, however each is written."""
    places = [(one.tenant, one.service, parse_registration(one.url)) for one in backends]
    for (tenant, service, place), times in Counter(places).items():
        if times > 1:
            name = f"{place} for {service} of tenant {tenant}"
            raise ValueError(f"expected each backend once, found {name} {times} times")
    return backends


_Keys = dict[Any, KeyEntry] | tuple[KeyEntry, ...]
Keys = Annotated[
    Annotated[dict[Any, KeyEntry], Tag(MAPPING)] | Annotated[tuple[KeyEntry, ...], Tag(LIST)],
    Discriminator(_form_of_keys),
    BeforeValidator(_spread),
    AfterValidator(_apart),
]


class Config(Section):
    """The whole file; `services` as the services' own loader reads them."""

    services: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    backends: Annotated[tuple[BackendEntry, ...], AfterValidator(_distinct)] = ()
    keys: Keys = ()
    server: Server = Server()
    vault: VaultPlace = VaultPlace()
    cache: Cache = Cache()
    limits: Limits = Limits()
    health: HealthChecks = HealthChecks()
    usage: Usage = Usage()
    prices: PriceTable = Field(default_factory=dict)
    sign_in: Annotated[tuple[IssuerEntry, ...], AfterValidator(each_named_once)] = ()
    _variables: frozenset[str] = PrivateAttr(default=frozenset())

    def model_post_init(self, context: object, /) -> None:
        """Takes what the loader saw, once all is sound."""
        if isinstance(context, Surroundings):
            self._variables = context.variables

    @property
    def variables(self) -> frozenset[str]:
        """The environment variables that it takes secrets from: nobody else's business."""
        return self._variables
