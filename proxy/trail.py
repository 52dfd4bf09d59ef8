"""What a running server leaves in the audit log: refused destinations, who signed in and out, and
who was given a short-lived token.

Whoever can cause an entry can cause no flood of them: of each kind and tenant there are a few at
once, then a few a minute, and how many were left out. They are written together, off every call's
way, and nobody waits for them.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from proxy.causes import frames, lineage
from proxy.clock import Clock
from proxy.destinations import Target
from proxy.errors import KeyMissing, RelayError
from proxy.grant import Client
from proxy.memo import bounded_put
from proxy.record import CallRecord
from vault import AuditEntry, Token, VaultError

REFUSED: Final = "destination refused"
SIGN_IN: Final = "page sign-in"
NO_SIGN_IN: Final = "page sign-in refused"
SIGN_OUT: Final = "page sign-out"
SHORT_LIVED: Final = "token short-lived"

AT_ONCE: Final = 20
EVERY_SECONDS: Final = 10.0
"""Of one kind and tenant so many entries at once, then one in this time."""

KINDS: Final = 4096
"""Kinds and tenants that are counted; of more the oldest begin anew."""

FLUSH_SECONDS: Final = 1.0
_WAITING: Final = 4096
_LONGEST_LABEL: Final = 20
_LEFT_OUT: Final = re.compile(r"([0-9]+) more, left out")
_LATE: Final = frozenset({"bad_destination", "destination_refused", "destination_ip_prohibited"})

_log = logging.getLogger("keyrelay")


class AuditLog(Protocol):
    """What is asked of the vault."""

    async def note(self, entries: Iterable[AuditEntry]) -> None:
        """Puts entries into the audit log, in one transaction; raises VaultError."""
        ...


class _Kind(NamedTuple):
    """What is counted by itself."""

    action: str
    tenant: str


class _Allowance:
    """How many entries of one kind there may still be, and how many were left out."""

    __slots__ = ("_left", "_since", "left_out")

    def __init__(self, now: float) -> None:
        self._left = float(AT_ONCE)
        self._since = now
        self.left_out = 0

    def take(self, now: float) -> bool:
        earned = (now - self._since) / EVERY_SECONDS
        self._left, self._since = min(AT_ONCE, self._left + earned), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Trail:
    """Takes in what happened; `start` before the first call, `stop` after the last."""

    def __init__(self, log: AuditLog, clock: Clock) -> None:
        self._audit = log
        self._clock = clock
        self._allowed: dict[_Kind, _Allowance] = {}
        self._waiting: list[AuditEntry] = []
        self._writing: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._refused = ""

    def observe(self, call: CallRecord) -> None:
        """A call that is over: refused for what its destination is, or for where that leads."""
        # Where no grant was given and the syntax was good, `refuse` has seen more of it.
        if call.code in _LATE and (call.host or call.code == "bad_destination"):
            self._note(REFUSED, call.tenant, call.token, f"{shown(call.host)} {call.code}".lstrip())

    def refuse(self, client: Client, target: Target, error: RelayError) -> None:
        """A call that may not go where it wants to."""
        if not isinstance(error, KeyMissing):
            place = f"{target.scheme}://{shown(target.host)}:{target.port}"
            self._note(REFUSED, client.tenant, client.name, f"{place} {error.code}")

    def signed_in(self, tenant: str, name: str) -> None:
        """Somebody has signed in to the page with this token."""
        self._note(SIGN_IN, tenant, name, name)

    def not_signed_in(self, why: str, tenant: str = "") -> None:
        """Somebody could not; `why` holds nothing of what they typed."""
        self._note(NO_SIGN_IN, tenant, "", why)

    def signed_out(self, tenant: str, token_id: str) -> None:
        """Somebody has signed out who had signed in with the token of this id."""
        self._note(SIGN_OUT, tenant, token_id, token_id)

    def short_lived(self, parent: Token, given: Token) -> None:
        """A token of minutes was made with another one."""
        services = "every service" if given.services is None else ", ".join(sorted(given.services))
        self._note(SHORT_LIVED, parent.tenant, parent.name, services)

    async def start(self) -> None:
        """Begins to write."""
        self._writing = asyncio.create_task(self._write_on())

    async def stop(self) -> None:
        """Writes what waits, and how many were left out."""
        self._over.set()
        if self._writing is not None:
            await self._writing
        for kind, allowance in self._allowed.items():
            self._sum_up(kind, allowance)
        await self.flush()
        if self._waiting:
            many = len(self._waiting)
            _log.error("%d entries of the audit log are lost: %s", many, self._refused)

    async def flush(self) -> None:
        """Writes what waits, if the vault takes it; else it waits on."""
        now = self._clock.monotonic()
        for kind, allowance in self._allowed.items():
            if allowance.left_out and allowance.take(now):
                self._sum_up(kind, allowance)
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        try:
            await self._audit.note(batch)
        except VaultError as error:
            self._refused = str(error)
            kept = [*batch, *self._waiting]
            self._waiting = kept[:_WAITING]
            for entry in kept[_WAITING:]:
                self._leave_out(entry)

    def _note(self, action: str, tenant: str, who: str, subject: str) -> None:
        kind, now = _Kind(action, tenant), self._clock.monotonic()
        allowance = self._allowed.get(kind)
        if allowance is None:
            allowance = _Allowance(now)
            bounded_put(self._allowed, kind, allowance, KINDS)
        if len(self._waiting) >= _WAITING or not allowance.take(now):
            allowance.left_out += 1
            return
        self._put(action, tenant, _actor(who), subject)

    def _leave_out(self, entry: AuditEntry) -> None:
        """One that was taken in already, and for which there is no room any more."""
        kind = _Kind(entry.action, entry.tenant)
        allowance = self._allowed.get(kind)
        if allowance is None:
            allowance = _Allowance(self._clock.monotonic())
            bounded_put(self._allowed, kind, allowance, KINDS)
        told = _LEFT_OUT.fullmatch(entry.subject)
        allowance.left_out += int(told[1]) if told else 1

    def _sum_up(self, kind: _Kind, allowance: _Allowance) -> None:
        if allowance.left_out:
            self._put(kind.action, kind.tenant, "serve", f"{allowance.left_out} more, left out")
            allowance.left_out = 0

    def _put(self, action: str, tenant: str, actor: str, subject: str) -> None:
        self._waiting.append(AuditEntry(self._clock.now(), actor, action, tenant, subject))

    async def _write_on(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), FLUSH_SECONDS)
            try:
                await self.flush()
            except Exception as error:
                words = f"the audit log could not be written: unexpected {lineage(error)}"
                _log.error(words, extra={"at": frames(error)})


def shown(host: str) -> str:
    """A host as it is written down: of a long label only how it begins, for it could be a secret
    that a caller has put into the wrong place."""
    if ":" in host:
        return host
    return ".".join(
        label if len(label) <= _LONGEST_LABEL else f"{label[:8]}~" for label in host.split(".")
    )


def _actor(who: str) -> str:
    if not who:
        return "serve"
    return who if who.startswith("key:") else f"token {who}"
