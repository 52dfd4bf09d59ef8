"""`keyrelay audit`: who did what to which thing, and whether that is still as it was written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import click

from proxy.cli.commands import Command, Group
from proxy.cli.failures import Failed
from proxy.cli.output import Row, instant, json_option, show_done, show_json, show_table
from proxy.cli.params import NAME, Moment, Pattern, bundled
from proxy.cli.session import Session, with_mending_session
from vault import AuditEntry, AuditReport

MOST: Final = 100_000
MOST_NAMED: Final = 20
_COLUMNS: Final = ("row", "at", "by", "act", "tenant", "subject")
_ACT: Final = Pattern(
    "words", re.compile(r"[a-z-]{1,32}( [a-z]{1,32}){0,2}"), "words such as: key, or: token revoke"
)
_SAYS: Final = {
    "audit begin": "rows before it were taken in as they stood",
    "rollback accept": "an older database was accepted there",
}


@click.group(cls=Group)
def audit() -> None:
    """Show who did what, and verify that nobody has changed it since."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which entries are meant."""

    since: float | None
    act: str | None
    tenant: str | None
    limit: int


@audit.command(cls=Command)
@bundled(
    "asked",
    Asked,
    click.option("--since", type=Moment(), help="30d, 12h (ago) or a date"),
    click.option(
        "--act", type=_ACT, help="only these acts, by their first words: key, token issue"
    ),
    click.option("--tenant", type=NAME, help="only of this tenant"),
    click.option(
        "--limit", type=click.IntRange(1, MOST), default=100, show_default=True, help="so many"
    ),
)
@json_option
@with_mending_session
async def show(session: Session, asked: Asked, as_json: bool) -> None:
    """Show the newest entries, the newest first."""
    found = await session.vault.audit(
        asked.limit, since=asked.since, action=asked.act, tenant=asked.tenant
    )
    show_table(_COLUMNS, [_row(entry) for entry in found], as_json)


@audit.command(cls=Command)
@json_option
@with_mending_session
async def verify(session: Session, as_json: bool) -> None:
    """Say whether every row is as it was written, and none is gone; exit 1 if not."""
    report = await session.vault.verify_audit()
    if not report.faults:
        show_done(_sentence(report), _facts(report), as_json)
        return
    if as_json:
        show_json(_facts(report))
    first, *others = [f"row {fault.row} {fault.what}" for fault in report.faults]
    further = f"; and {', '.join(others)}" if others else ""
    raise Failed(f"the audit log is not as keyrelay wrote it: {first}{further}")


@audit.command(cls=Command)
@json_option
@with_mending_session
async def rows(session: Session, as_json: bool) -> None:
    """Name each key, token, backend and purge that somebody changed, put back or took out behind
    keyrelay's back; exit 1 if there is one. Nothing of such a row is served."""
    found = [_plain(fault) for fault in await session.vault.examine()]
    facts: Row = {"intact": not found, "faults": found}
    if not found:
        show_done("every row of the vault is as keyrelay wrote it", facts, as_json)
        return
    if as_json:
        show_json(facts)
    raise Failed(
        f"the vault's rows are not as keyrelay wrote them: {'; '.join(found[:MOST_NAMED])}"
    )


def _sentence(report: AuditReport) -> str:
    noted = [f"; row {entry.number}: {_SAYS[entry.action]}" for entry in report.notable]
    since = f" since {_at(report.since)}" if report.since is not None else ""
    rows = "1 row" if report.rows == 1 else f"{report.rows} rows"
    return f"the audit log is intact: {rows}{since}{''.join(noted)}"


def _facts(report: AuditReport) -> Row:
    return {
        "intact": not report.faults,
        "rows": report.rows,
        "since": _at(report.since),
        "faults": [{"row": fault.row, "what": fault.what} for fault in report.faults],
        "notable": [{"row": one.number, "act": one.action} for one in report.notable],
    }


def _row(entry: AuditEntry) -> Row:
    texts = (entry.actor, entry.action, entry.tenant, entry.subject)
    by, act, tenant, subject = map(_plain, texts)
    values = (entry.number, _at(entry.at), by, act, tenant or None, subject)
    return dict(zip(_COLUMNS, values, strict=True))


def _plain(text: object) -> str:
    """In one line, and without what steers a terminal: a row may be somebody else's."""
    return "".join(sign if sign.isprintable() else "?" for sign in str(text))


def _at(seconds: float | None) -> str | None:
    try:
        return instant(seconds)
    except (TypeError, ValueError, OverflowError):  # no row of ours
        return "?"
