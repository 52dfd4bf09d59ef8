"""`keyrelay usage`: what was called, by whom, with what success and at what price."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from proxy.cli.commands import Command
from proxy.cli.desk import Desk
from proxy.cli.failures import Failed
from proxy.cli.known import known_service
from proxy.cli.output import instant, json_option, show_json, show_table
from proxy.cli.params import CALLER, NAME, Moment, all_option, bundled, tenant_option
from proxy.cli.session import require_data, with_desk
from proxy.services import load_services
from proxy.usage import Part, Sums, UsageError, Which, document, usage_store

USUAL_DAYS: Final = 30
DAY: Final = 86_400

_BY: Final[Mapping[str, Part]] = {
    "day": "day",
    "hour": "hour",
    "token": "token",
    "service": "service",
    "tenant": "tenant",
}
_COLUMNS: Final = ("calls", "success", "hits", "saved", "average", "p50", "p90", "p99")
_TOKENS: Final = ("tokens in", "tokens out")
_MONEY: Final = ("cost", "saved money")


@dataclass(frozen=True, slots=True)
class Asked:
    """Which calls are meant, in the words of the command line."""

    tenant: str
    every_tenant: bool
    token: str | None
    service: str | None
    since: float | None
    until: float | None
    by: str


@click.command(cls=Command)
@bundled(
    "asked",
    Asked,
    tenant_option,
    all_option,
    click.option("--token", type=CALLER, help="only this, by its name or id"),
    click.option("--service", type=NAME, help="only this"),
    click.option("--since", type=Moment(), help="30d, 12h (ago) or a date; 30d by default"),
    click.option("--until", type=Moment(), help="1d (ago) or a date, which does not count itself"),
    click.option(
        "--by", type=click.Choice(list(_BY)), default="day", show_default=True, help="a line each"
    ),
)
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="print comma-separated values")
@with_desk
def usage(desk: Desk, asked: Asked, as_json: bool, as_csv: bool) -> None:
    """Say what was called, with what success and at what price; also while a server runs."""
    require_data(desk)
    if as_json and as_csv:
        raise click.UsageError("choose one of --json and --csv")
    url = desk.vault_place().url
    try:
        store = usage_store(desk.data, None if url is None else url.text)
        lines, total = store.sums(_which(desk, asked), (_BY[asked.by],), ())
    except UsageError as error:
        raise Failed(f"usage can't be read: {error}") from error
    if as_json:
        show_json({"total": document((total or [Sums({})])[0]), "by": _documents(lines)})
    elif as_csv:
        click.echo(_csv(asked.by, lines), nl=False)
    else:
        _show(asked.by, lines, total)


def _which(desk: Desk, asked: Asked) -> Which:
    now = desk.clock.now()
    service = asked.service
    if service is not None:
        service = known_service(load_services(desk.config().services), service).name
    tomorrow = now - now % DAY + DAY
    return Which(
        since=tomorrow - USUAL_DAYS * DAY if asked.since is None else asked.since,
        until=tomorrow if asked.until is None else asked.until,
        tenant=None if asked.every_tenant else asked.tenant,
        service=service,
        token=asked.token,
    )


def _documents(lines: Sequence[Sums]) -> list[dict[str, Any]]:
    return [{**document(one), **_named(one)} for one in lines]


def _named(one: Sums) -> dict[str, object]:
    """What tells a line from the others, as people write it; times in UTC."""
    return {
        name: instant(value) if name in ("day", "hour") else value
        for name, value in one.group.items()
    }


def _csv(by: str, lines: Sequence[Sums]) -> str:
    """A header, then a line each; members that are mappings by their names behind a dot."""
    rows = [_flat(one) for one in _documents(lines)]
    names = list(rows[0]) if rows else [by, *list(_flat(document(Sums({}))))]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(row: Mapping[str, Any], before: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name}.")
        else:
            found[before + name] = value
    return found


def _show(by: str, lines: Sequence[Sums], total: Sequence[Sums]) -> None:
    columns = [by, *_COLUMNS]
    if any(one.tokens_input + one.tokens_output + one.tokens_saved for one in total):
        columns += _TOKENS
    if any(one.cost is not None for one in total):
        columns += _MONEY
    rows = [{by: _line_name(by, one), **_cells(one)} for one in lines]
    rows += [{by: "all", **_cells(one)} for one in total if len(lines) > 1]
    show_table(columns, rows, as_json=False)


def _line_name(by: str, one: Sums) -> str:
    value = one.group[by]
    if by in ("day", "hour"):
        text = instant(value) or ""
        return text[:10] if by == "day" else text[:16].replace("T", " ")
    return value or "-"


def _cells(one: Sums) -> dict[str, object]:
    rate = one.success_rate
    return {
        "calls": one.calls,
        "success": None if rate is None else f"{rate:.1%}",
        "hits": one.hits,
        "saved": one.hits + one.joined,
        "average": _seconds(one.average),
        **{f"p{percent}": _seconds(one.percentile(percent / 100)) for percent in (50, 90, 99)},
        "tokens in": one.tokens_input,
        "tokens out": one.tokens_output,
        "cost": _money(one.cost),
        "saved money": _money(one.saved),
    }


def _seconds(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.1f} s"


def _money(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
