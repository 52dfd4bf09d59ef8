"""`keyrelay service`: the services known by name, and how each carries its key."""

from __future__ import annotations

from typing import Final

import click

from proxy.cli.commands import Group
from proxy.cli.desk import Desk
from proxy.cli.known import known_service
from proxy.cli.output import json_option, show_facts, show_table
from proxy.cli.session import with_desk
from proxy.services import Service, Slot, load_services

_COLUMNS: Final = ("name", "category", "hosts", "key in")


@click.group(cls=Group)
def service() -> None:
    """Show the services known by name: their hosts, and how each carries its key."""


@service.command("list")
@click.argument("text", default="")
@json_option
@with_desk
def list_(desk: Desk, text: str, as_json: bool) -> None:
    """List the services, or those with TEXT in a name, an alias, a category or a host."""
    wanted = text.lower()
    rows = [
        _facts(one)
        for one in load_services(desk.config().services).all
        if any(wanted in w for w in _words(one))
    ]
    show_table(_COLUMNS, sorted(rows, key=lambda row: str(row["name"])), as_json)


@service.command()
@click.argument("name")
@json_option
@with_desk
def show(desk: Desk, name: str, as_json: bool) -> None:
    """Show one service: its hosts, where its key stands, what a backend gets."""
    show_facts(_facts(known_service(load_services(desk.config().services), name)), as_json)


def _words(one: Service) -> tuple[str, ...]:
    return (one.name, *one.aliases, one.category, *one.hosts)


def _facts(one: Service) -> dict[str, object]:
    return {
        "name": one.name,
        "aliases": list(one.aliases),
        "category": one.category,
        "hosts": list(one.hosts),
        "base": one.base,
        "origin": one.origin,
        "key in": _carried(one.slots),
        "key in by host": [
            f"{host}: {slot}"
            for host, slots in one.slots_by_host.items()
            for slot in _carried(slots)
        ],
        "key in by version": [
            f"{version.decode()}: {slot}"
            for version, slots in one.slots_by_version.items()
            for slot in _carried(slots)
        ],
        "backend gets": _carried(one.backend_slots),
        "parts": [part.name for part in one.parts],
        "defaults": [f"{name.decode()}: {value.decode()}" for name, value in one.defaults],
        "downloads from": list(one.download_hosts),
        "test": f"{one.probe.method} {one.probe.path}" if one.probe else None,
        "note": one.note or None,
    }


def _carried(slots: tuple[Slot, ...]) -> list[str]:
    return [_slot(slot) for slot in slots]


def _slot(slot: Slot) -> str:
    if slot.carrier == "basic":
        return f"header Authorization: Basic {slot.template}"
    if slot.carrier == "header":
        return f"header {slot.name}: {slot.template}"
    if slot.carrier == "query":
        return f"query {slot.name}={slot.template}"
    return f"path {slot.template}"
