"""One described entry to one Service: slots, parts and names, checked against each other. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from proxy.services.model import Carrier, Part, Probe, Service, Slot
from proxy.services.schema import HOST_PLACEHOLDER, PLACEHOLDER, CarrierEntry, ServiceEntry
from proxy.services.slots import every_slot, query_names

AUTHORIZATION = "Authorization"
KEY = "key"


def service_of(name: str, entry: ServiceEntry) -> Service:
    """The service that an entry describes. Raises ValueError with `member: what was expected`."""
    slots = _slots(entry)
    by_host = {host: _slots(other) for host, other in entry.by_host.items()}
    by_version = {v.encode(): _slots(entry.by_version[v]) for v in sorted(entry.by_version)[::-1]}
    groups = (*by_host.values(), *by_version.values())
    every = (*slots, *(slot for group in groups for slot in group))
    parts = _parts(entry, every)
    service = Service(
        name=name,
        category=entry.category,
        hosts=entry.hosts,
        slots=slots,
        backend_slots=_backend_slots(entry, slots, parts) if every else (),
        base=_base(entry),
        origin=entry.origin,
        slots_by_host=by_host,
        slots_by_version=by_version,
        parameters=_parameters(entry, every),
        parts=parts,
        defaults=tuple((k.lower().encode(), v.encode()) for k, v in entry.defaults.items()),
        download_hosts=entry.download_hosts,
        aliases=entry.aliases,
        probe=_probe(entry),
        honour_no_store=entry.honour_no_store,
        note=entry.note,
    )
    _check(service)
    return service


def _slots(entry: CarrierEntry) -> tuple[Slot, ...]:
    if entry.carrier == "none":
        return ()
    carrier: Carrier = "query" if entry.carrier == "query" else "header"
    extra = (Slot(carrier, name, template) for name, template in entry.extra.items())
    return (_first_slot(entry), *extra)


def _first_slot(entry: CarrierEntry) -> Slot:
    name = entry.key_name or AUTHORIZATION
    if entry.carrier == "basic":
        username = "{username}" if entry.username is None else entry.username
        password = "{key}" if entry.password is None else entry.password
        return Slot("basic", AUTHORIZATION, f"{username}:{password}")
    if entry.carrier == "path":
        return Slot("path", name.replace("{key}", ""), name, entry.after)
    if entry.carrier == "query":
        return Slot("query", name, (entry.prefix or "") + "{key}")
    usual = "Bearer " if name.lower() == "authorization" else ""
    return Slot("header", name, (usual if entry.prefix is None else entry.prefix) + "{key}")


def placeholders(slots: Iterable[Slot]) -> Iterator[str]:
    """The parts that templates ask for, in order, each once; `{host}` is none."""
    found = (name for slot in slots for name in PLACEHOLDER.findall(slot.template))
    return (name for name in dict.fromkeys(found) if name != HOST_PLACEHOLDER)


def _parts(entry: ServiceEntry, slots: tuple[Slot, ...]) -> tuple[Part, ...]:
    if entry.parts is None:
        return tuple(_usual_part(name) for name in placeholders(slots))
    return tuple(
        Part(name, given) if isinstance(given, str) else Part(name, given.title, given.secret)
        for name, given in entry.parts.items()
    )


def _usual_part(name: str) -> Part:
    if name == KEY:
        return Part(KEY, "API key")
    return Part(name, name.replace("_", " ").capitalize(), secret=name != "username")


def _backend_slots(
    entry: ServiceEntry, slots: tuple[Slot, ...], parts: tuple[Part, ...]
) -> tuple[Slot, ...]:
    """How a backend receives the key: in header fields, which any framework can read.

    A field that holds no part of the key says something of the provider's host: not for a backend.
    """
    fields = tuple(
        slot for slot in slots if slot.carrier in ("header", "basic") and any(placeholders((slot,)))
    )
    if entry.backend_header:
        further = tuple(slot for slot in fields if slot is not slots[0])
        return (Slot("header", entry.backend_header, entry.backend_prefix + "{key}"), *further)
    if slots and slots[0] in fields:
        return fields
    if len(parts) == 1:
        return (Slot("header", AUTHORIZATION, "Bearer {key}"), *fields)
    return (Slot("basic", AUTHORIZATION, ":".join(f"{{{part.name}}}" for part in parts)),)


def _base(entry: ServiceEntry) -> str | None:
    if entry.base is not None:
        return entry.base.rstrip("/")
    exact = next((host for host in entry.hosts if not host.startswith("*.")), None)
    return exact and f"https://{exact}"


def _parameters(entry: ServiceEntry, slots: tuple[Slot, ...]) -> tuple[str, ...]:
    return tuple(sorted({*query_names(slots), *entry.also_in_query}))


def _probe(entry: ServiceEntry) -> Probe | None:
    return None if entry.probe is None else Probe(*entry.probe.split(" ", 1))


def _check(service: Service) -> None:
    if not service.hosts and service.origin is None and not service.keyless:
        raise ValueError("hosts: expected at least one host, or an origin")
    _check_base(service)
    for host in service.slots_by_host:
        if host not in service.hosts:
            raise ValueError(f"by_host.{host}: expected one of the service's hosts")
    if service.slots_by_version and not service.defaults:
        raise ValueError("by_version: expected the version's field among `defaults`")
    if not service.keyless:
        _check_parts(service)


def _check_base(service: Service) -> None:
    if service.base is None:
        return
    scheme, _, rest = service.base.partition("://")
    if scheme != "https" or rest.partition("/")[0] not in service.hosts:
        raise ValueError("base: expected https:// and one of the service's hosts")


def _check_parts(service: Service) -> None:
    known = {part.name for part in service.parts}
    used = set(placeholders((*every_slot(service), *service.backend_slots)))
    if used - known:
        raise ValueError(f"parts: expected `{min(used - known)}`, which a template names")
    if known - used:
        raise ValueError(f"parts.{min(known - used)}: expected a template that holds it")
    if not any(part.name == KEY and part.secret for part in service.parts):
        raise ValueError("parts: expected a secret part called `key`")
