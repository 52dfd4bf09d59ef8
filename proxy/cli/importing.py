"""`keyrelay import`: the keys, backends and services of a YAML file, at once or not at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any, Final

import click

from proxy.cli.commands import Command
from proxy.cli.desk import Desk
from proxy.cli.failures import EXIT_FAILED, Failed
from proxy.cli.init import make
from proxy.cli.output import json_option, show_json
from proxy.cli.session import open_session, with_desk
from proxy.config import (
    Config,
    declared_backends,
    declared_keys,
    importing_alone,
    load_config,
    read_document,
    read_imported_services,
    services_of,
    staged_services,
)
from vault import Changes, Outcome

_CONFLICT: Final = "conflict"


@click.command("import", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="where something differs, the file wins")
@json_option
@with_desk
def import_file(desk: Desk, file: Path, replace: bool, as_json: bool) -> None:
    """Seal every key of FILE into the vault, and register its services and backends.

    FILE looks like keys.example.yaml; keys may stand in it as they are, so delete it afterwards.
    Importing it again changes nothing. A key that differs from the stored one is a conflict, and
    then nothing at all is imported, unless --replace says that FILE wins.
    """
    _refuse_own_configuration(desk, file)
    outcomes = asyncio.run(_import(desk, file, replace))
    _show(outcomes, as_json)
    if any(outcome.done == _CONFLICT for outcome in outcomes):
        click.echo(
            "keyrelay: nothing was imported because of what differs: --replace takes the file's",
            err=True,
        )
        click.get_current_context().exit(EXIT_FAILED)


def _refuse_own_configuration(desk: Desk, file: Path) -> None:
    own = desk.config_path
    if own is not None and file.exists() and own.exists() and own.samefile(file):
        raise Failed(
            f"{file} is the configuration itself: what it declares needs no import; "
            "put what is to be sealed into another file"
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a file asks for beside what was imported before."""

    before: Mapping[str, Any]
    wanted: Config
    services: tuple[Outcome, ...]

    @property
    def conflicting(self) -> bool:
        return any(outcome.done == _CONFLICT for outcome in self.services)


async def _import(desk: Desk, file: Path, replace: bool) -> Sequence[Outcome]:
    document = read_document(file)  # once: it may be a pipe
    plan = _plan(desk, file, document, replace)  # a mistake stops before anything is made
    if plan.conflicting:
        return plan.services
    await make(desk)
    with importing_alone(desk.data):
        plan = _plan(desk, file, document, replace)  # another import may just have ended
        return plan.services if plan.conflicting else await _carry_out(desk, plan, replace)


def _plan(desk: Desk, file: Path, document: Mapping[str, object], replace: bool) -> _Plan:
    before = read_imported_services(desk.data)
    wanted = load_config(
        file, desk.environ, imported=before, key_values="import", document=document
    )
    return _Plan(before, wanted, _services(before, services_of(document), replace))


async def _carry_out(desk: Desk, plan: _Plan, replace: bool) -> list[Outcome]:
    """All of it or nothing; the services are on the disk before the keys, and come last."""
    services = plan.wanted.services
    async with open_session(desk, desk.config()) as session:
        with staged_services(desk.data, services) as put:
            applied = await session.vault.apply(_changes(plan.wanted), replace=replace)
            if not applied.conflicts and dict(services) != plan.before:
                put()
    return [*plan.services, *applied.outcomes]


def _changes(wanted: Config) -> Changes:
    backends = (changed(backend, declared=False) for backend in declared_backends(wanted))
    return Changes(tuple(declared_keys(wanted)), tuple(backends))


def _services(
    before: Mapping[str, Any], wanted: Mapping[str, Any], replace: bool
) -> tuple[Outcome, ...]:
    def of(name: str) -> Outcome:
        if name not in before:
            return Outcome("added", "service", "", name, name)
        if before[name] == wanted[name]:
            return Outcome("unchanged", "service", "", name, name)
        return Outcome("replaced" if replace else "conflict", "service", "", name, name)

    return tuple(of(name) for name in wanted)


def _show(outcomes: Sequence[Outcome], as_json: bool) -> None:
    if as_json:
        show_json([_row(outcome) for outcome in outcomes])
        return
    for outcome in outcomes:
        click.echo(f"{outcome.done.ljust(9)}  {_described(outcome)}")
    counts = Counter(outcome.done for outcome in outcomes)
    click.echo(", ".join(f"{number} {done}" for done, number in counts.items()) or "nothing in it")


def _described(outcome: Outcome) -> str:
    if outcome.kind == "service":
        return f"service {outcome.name}"
    if outcome.kind == "key":
        return f"key {outcome.service}/{outcome.name} of tenant {outcome.tenant}"
    return f"backend {outcome.name} for {outcome.service} of tenant {outcome.tenant}"


def _row(outcome: Outcome) -> dict[str, str]:
    return {
        "done": outcome.done,
        "kind": outcome.kind,
        "tenant": outcome.tenant,
        "service": outcome.service,
        "name": outcome.name,
    }
