"""The names under which a service carries its key, over all its hosts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from proxy.services.model import Service, Slot


def header_names(slots: Iterable[Slot]) -> frozenset[bytes]:
    """The fields among these slots, in lower case."""
    return frozenset(
        b"authorization" if slot.carrier == "basic" else slot.name.lower().encode()
        for slot in slots
        if slot.carrier in ("header", "basic")
    )


def query_names(slots: Iterable[Slot]) -> frozenset[str]:
    """The query parameters among these slots."""
    return frozenset(slot.name for slot in slots if slot.carrier == "query")


def every_slot(service: Service) -> Iterator[Slot]:
    """Every place where a service looks for its key on any host, also where we write none."""
    yield from service.slots
    for slots in (*service.slots_by_host.values(), *service.slots_by_version.values()):
        yield from slots
    for name in service.parameters:
        yield Slot("query", name, "{key}")
