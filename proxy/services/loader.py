"""The registry of services: services.yaml, and above it what the configuration says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxy.destinations import Target, parse_registration, reachable
from proxy.errors import RelayError
from proxy.services.entries import placeholders, service_of
from proxy.services.model import Service
from proxy.services.schema import CARRIER_MEMBERS, NAME, RESERVED, ServiceEntry
from proxy.services.slots import every_slot
from vault import Binding

_FILE: Final = Path(__file__).with_name("services.yaml")
_ALWAYS: Final = frozenset({b"authorization", b"proxy-authorization", b"x-relay-token"})
# The parser of libyaml is eight times as fast; not every build of PyYAML has it.
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_WORDS: Final = {
    "extra_forbidden": "no member of a service has this name",
    "tuple_type": "expected a list",
    "string_type": "expected text",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
}

_Raw = dict[str, Any]
Override = Mapping[str, Any] | ServiceEntry


class ServiceError(ValueError):
    """Entries that are no services; `problems`: one line each, path in the file and expectation."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True, eq=False)
class Services:
    """Every service that is known; immutable. Look-ups cost one dictionary access."""

    all: tuple[Service, ...]
    names: frozenset[str]
    credential_headers: frozenset[bytes]
    _by_name: Mapping[str, Service]
    _exact: Mapping[str, tuple[Service, ...]]
    _wildcard: Mapping[str, tuple[Service, ...]]
    _origins: Mapping[str, Binding]

    def get(self, name: str) -> Service | None:
        """The service of this name or alias; None when unknown."""
        return self._by_name.get(name)

    def canonical(self, name: str) -> str | None:
        """The name that a name or an alias stands for; None when unknown."""
        service = self._by_name.get(name)
        return None if service is None else service.name

    def base(self, name: str) -> str | None:
        """Where the path form goes: the origin if one is set, else the base, else None."""
        service = self._by_name.get(name)
        return None if service is None else service.origin or service.base

    def candidates(self, host: str) -> tuple[Service, ...]:
        """The services whose host this is: by exact name, else by a `*.` for the first label."""
        return self._exact.get(host) or self._wildcard.get(host.partition(".")[2], ())

    def origin_of(self, name: str) -> Binding | None:
        """The place that the admin set as this service's origin."""
        return self._origins.get(self.canonical(name) or "")

    def of_origin(self, target: Target) -> tuple[Service, ...]:
        """The services whose origin covers this destination."""
        place = (target.scheme, target.host, target.port, target.path)
        return tuple(
            self._by_name[name] for name, origin in self._origins.items() if origin.covers(*place)
        )


def load_services(overrides: Mapping[str, Override] | None = None) -> Services:
    """The built-in services with the configuration's own above them.

    An entry of a known name (or, without `hosts`, of a known alias) changes the members that it
    has; one with `in` replaces the whole way to carry the key. Any other entry is a service of its
    own, before which a built-in alias gives way. Raises ServiceError with every problem at once.
    """
    problems: list[str] = []
    merged, given = _merge(_built_in(), _own(overrides or {}, problems))
    found = (_service(name, raw, problems) for name, raw in merged.items())
    services = tuple(service for service in found if service is not None)
    registry = _registry(tuple(_without_lost_aliases(services, given)), problems)
    if problems:
        raise ServiceError(problems)
    return registry


@cache  # a reload reads what the admin may have changed
def _built_in() -> Mapping[str, _Raw]:
    with _FILE.open("rb") as file:
        return dict(yaml.load(file, _Loader)["services"])  # noqa: S506  # a safe loader


def _own(overrides: Mapping[str, Override], problems: list[str]) -> dict[str, _Raw]:
    own: dict[str, _Raw] = {}
    for name, entry in overrides.items():
        if isinstance(entry, ServiceEntry):
            own[name] = entry.model_dump(exclude_unset=True, by_alias=True)
        elif isinstance(entry, Mapping):
            own[name] = dict(entry)
        else:
            problems.append(f"services.{name}: expected the members of a service")
    return own


def _merge(
    built_in: Mapping[str, _Raw], own: dict[str, _Raw]
) -> tuple[dict[str, _Raw], dict[str, str]]:
    """The entries together; and every name that the configuration gives, with whose it is."""
    merged, given = dict(built_in), dict[str, str]()
    stands_for = {alias: name for name, raw in built_in.items() for alias in raw.get("aliases", ())}
    for written, raw in own.items():
        name = written if "hosts" in raw else stands_for.get(written, written)
        given |= dict.fromkeys((name, *_strings(raw.get("aliases"))), name)
        merged[name] = _over(merged.get(name, {}), raw)
    return merged, given


def _strings(value: object) -> list[str]:
    """What a list holds of text; the schema complains about the rest."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _over(below: _Raw, above: _Raw) -> _Raw:
    gone = CARRIER_MEMBERS if "in" in above else frozenset[str]()
    if "hosts" in above:
        gone |= {"base", "by_host"}
    return {member: value for member, value in below.items() if member not in gone} | above


def _service(name: str, raw: _Raw, problems: list[str]) -> Service | None:
    at = f"services.{name}"
    if not NAME.fullmatch(str(name)) or name in RESERVED:
        problems.append(f"{at}: expected a name of a-z, 0-9, _ and - that is not reserved")
        return None
    try:
        return _with_plain_origin(service_of(name, ServiceEntry.model_validate(raw)))
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False, include_context=False)
        problems += [f"{at}{_path(m['loc'])}: {_expected(m)}" for m in mistakes]
    except RelayError as error:
        problems.append(f"{at}.origin: {error.remark}")
    except ValueError as error:
        problems.append(f"{at}.{error}")
    return None


def _path(location: tuple[int | str, ...]) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return "".join(steps).removesuffix(".[key]")  # the name of a member, not its value


def _expected(mistake: ErrorDetails) -> str:
    if mistake["type"] in _WORDS:
        return _WORDS[mistake["type"]]
    text = mistake["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1)
    return text[:1].lower() + text[1:]


def _with_plain_origin(service: Service) -> Service:
    if service.origin is None:
        return service
    return replace(service, origin=str(_place(service.origin)).rstrip("/"))


def _without_lost_aliases(
    services: Iterable[Service], given: Mapping[str, str]
) -> Iterator[Service]:
    """A name that the configuration gives to another service is no longer a built-in alias."""
    for service in services:
        kept = tuple(a for a in service.aliases if given.get(a, service.name) == service.name)
        yield service if kept == service.aliases else replace(service, aliases=kept)


def _registry(services: tuple[Service, ...], problems: list[str]) -> Services:
    by_name = _by_name(services, problems)
    exact: dict[str, tuple[Service, ...]] = {}
    wildcard: dict[str, tuple[Service, ...]] = {}
    for service in services:
        for host in service.hosts:
            index = wildcard if host.startswith("*.") else exact
            place = host.removeprefix("*.")
            index[place] = (*index.get(place, ()), service)
    return Services(
        all=services,
        names=frozenset(by_name),
        credential_headers=_ALWAYS.union(*map(_fields_with_parts, services)),
        _by_name=by_name,
        _exact=exact,
        _wildcard=wildcard,
        _origins={s.name: _place(s.origin) for s in services if s.origin is not None},
    )


def _by_name(services: Iterable[Service], problems: list[str]) -> dict[str, Service]:
    by_name = {service.name: service for service in services}
    for service in services:
        for alias in service.aliases:
            if by_name.setdefault(alias, service) is not service:
                problems.append(
                    f"services.{service.name}.aliases: expected free names, {alias} is not"
                )
    return by_name


def _fields_with_parts(service: Service) -> Iterator[bytes]:
    for slot in (*every_slot(service), *service.backend_slots):
        if slot.carrier == "header" and any(placeholders((slot,))):
            yield slot.name.lower().encode()


def _place(origin: str) -> Binding:
    """Raises RelayError when the origin is no place to register."""
    return reachable(parse_registration(origin.rstrip("/")))
