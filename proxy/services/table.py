"""The page docs/services.md: `python -m proxy.services.table > docs/services.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from proxy.services import schema
from proxy.services.loader import Services, load_services
from proxy.services.model import Service, Slot

_CATEGORIES: Final = {
    "ai": "Language models and what belongs to them",
    "media": "Images, sound, video",
    "search": "Search and scraping",
    "maps": "Maps, weather, places",
    "data": "Data",
    "comms": "Mail, messages, telephone",
    "dev": "Development, shops, operations",
}
_INTRODUCTION: Final = """\
# Services by name

keyrelay knows {count} services. `keyrelay service show NAME` tells the same of one of them.

- The *path form* of a service is `/proxy/NAME/...`; it goes to the host in bold. Where no host is
  bold, every tenant has its own: use `/proxy/https/HOST/...`.
- `*.` in a host is one label of your own, which is fixed when the key is added.
- *Key* is how the provider wants it. A backend always receives it in header fields: the same ones,
  or those named after "backend".
- A *default* is written only where the caller sent no such field.
"""
_OWN: Final = """
## A service of your own

An entry under `services` of `keys.yaml` describes a service that is not in the list, or changes one
that is (an entry with nothing but `origin`, say). An entry that has `in` replaces the whole way to
carry the key; one with `hosts` replaces these.

{members}
"""


def document(services: Services) -> str:
    """The whole page, as Markdown."""
    sections = (
        f"\n## {title}\n\n{_table(services, category)}" for category, title in _CATEGORIES.items()
    )
    members = (schema.__doc__ or "").partition("\n\n")[2].rstrip()
    introduction = _INTRODUCTION.format(count=len(services.all))
    return introduction + "".join(sections) + _OWN.format(members=members)


def _table(services: Services, category: str) -> str:
    rows = (_row(service) for service in services.all if service.category == category)
    return "| name | hosts | key | more |\n|---|---|---|---|\n" + "".join(rows)


def _row(service: Service) -> str:
    names = ", ".join(f"`{name}`" for name in (service.name, *service.aliases))
    hosts = "<br>".join(_host(service, host) for host in service.hosts) or "by `origin` only"
    cells = (names, hosts, "<br>".join(_key(service)), "<br>".join(_more(service)))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _host(service: Service, host: str) -> str:
    return f"**`{host}`**" if service.base == f"https://{host}" else f"`{host}`"


def _key(service: Service) -> Iterator[str]:
    if service.keyless:
        yield "none"
        return
    yield _carried(service.slots)
    for host, slots in service.slots_by_host.items():
        yield f"{host}: {_carried(slots)}"
    for version, slots in service.slots_by_version.items():
        yield f"from version {version.decode()} on: {_carried(slots)}"
    if service.backend_slots != service.slots:
        yield f"backend: {_carried(service.backend_slots)}"
    if len(service.parts) > 1:
        shown = (part.title + ("" if part.secret else " (not secret)") for part in service.parts)
        yield "parts: " + ", ".join(shown)


def _carried(slots: tuple[Slot, ...]) -> str:
    return ", ".join(f"`{_slot(slot)}`" for slot in slots)


def _slot(slot: Slot) -> str:
    if slot.carrier == "query":
        return f"?{slot.name}={slot.template}"
    if slot.carrier == "path":
        return f"/{slot.template}/..."
    if slot.carrier == "basic":
        return f"{slot.name}: Basic base64({slot.template})"
    return f"{slot.name}: {slot.template}"


def _more(service: Service) -> Iterator[str]:
    for name, value in service.defaults:
        yield f"default `{name.decode()}: {value.decode()}`"
    if service.download_hosts:
        yield "downloads: " + ", ".join(f"`{host}`" for host in service.download_hosts)
    if service.probe:
        yield f"test: `{service.probe.method} {service.probe.path}`"
    if service.note:
        yield service.note.replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.write(document(load_services()))
