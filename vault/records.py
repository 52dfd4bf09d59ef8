"""The immutable records that cross the vault's front door; none of them holds a secret value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypedDict

from vault.bindings import Binding
from vault.secret import Credential, Secret

DEFAULT_TENANT = "default"
ROLES = ("call", "read", "admin")


@dataclass(frozen=True, slots=True)
class KeyRef:
    """Which key: enough to open it, nothing that opens it.

    `hosts` are the exact hosts that stand in for a service's `*.` hosts, fixed when it was added.
    `declared` keys are owned by the configuration file.
    """

    tenant: str
    service: str
    alias: str
    version: int
    default: bool = False
    hosts: tuple[str, ...] = ()
    declared: bool = False


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as a list shows it. Times are Unix seconds."""

    ref: KeyRef
    masked: str
    created_at: float
    rotated_at: float | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to put into the vault. `recognised_by`: the part that a backend would send back."""

    tenant: str
    service: str
    alias: str
    credential: Credential = field(repr=False)
    recognised_by: str = "key"
    hosts: tuple[str, ...] = ()


class Narrowing(NamedTuple):
    """Where and how a token may call; an empty member narrows nothing.

    Exact `hosts`; path prefixes that count by whole segments; `methods` in capitals; `origins` of
    pages, one of which must have sent the call. As text that the proxy has made canonical.
    """

    hosts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


EVERY_CALL: Final = Narrowing()
"""Not narrowed at all."""


@dataclass(frozen=True, slots=True)
class ShortLived:
    """What a short-lived token has beside what its parent has: both narrowings hold.

    `serial`: what it is counted by; `calls`: how many it may make in all, None: no such bound.
    """

    serial: str
    narrowing: Narrowing = EVERY_CALL
    calls: int | None = None


@dataclass(frozen=True, slots=True)
class NewShortLived:
    """A short-lived token to issue; `services` None: all of its parent's, as they are then.

    An empty member of `narrowing`: what its parent is narrowed to then.
    """

    expires_at: float
    services: frozenset[str] | None = None
    narrowing: Narrowing = EVERY_CALL
    calls: int | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A platform token, without its secret. `services` None: every service of its tenant.

    `limits` of all its calls and `upstream_limits` of those that go to an upstream: as text that
    whoever counts has made canonical; empty: none of its own. `budget`: upstream calls a month.
    `calls`: how many it may make in all, ever; None: no such bound.
    `short`: this is a short-lived token, by the name and id of the one that it was made with.
    """

    id: str
    name: str
    tenant: str
    role: str
    created_at: float
    services: frozenset[str] | None = None
    key_aliases: Mapping[str, str] = field(default_factory=dict)
    expires_at: float | None = None
    revoked_at: float | None = None
    limits: tuple[str, ...] = ()
    upstream_limits: tuple[str, ...] = ()
    budget: int | None = None
    narrowing: Narrowing = EVERY_CALL
    short: ShortLived | None = None
    calls: int | None = None


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token to issue; see Token for what its members mean."""

    tenant: str
    name: str
    role: str = "call"
    services: frozenset[str] | None = None
    key_aliases: Mapping[str, str] = field(default_factory=dict)
    expires_at: float | None = None
    limits: tuple[str, ...] = ()
    upstream_limits: tuple[str, ...] = ()
    budget: int | None = None
    narrowing: Narrowing = EVERY_CALL
    calls: int | None = None


class TokenChange(TypedDict, total=False):
    """What is to be different about a token; what is not named stays."""

    limits: tuple[str, ...]
    upstream_limits: tuple[str, ...]
    budget: int | None
    hosts: tuple[str, ...]
    paths: tuple[str, ...]
    methods: tuple[str, ...]
    origins: tuple[str, ...]
    calls: int | None


@dataclass(frozen=True, slots=True)
class Backend:
    """A place of the admin's own where a service's key may go."""

    tenant: str
    service: str
    binding: Binding
    declared: bool = False


@dataclass(frozen=True, slots=True)
class Holdings:
    """What one tenant holds: the newest version of each key, and its backends.

    `keys` by service, the default first; `backends` in registration order.
    """

    tenant: str
    keys: Mapping[str, tuple[KeyRef, ...]] = field(default_factory=dict)
    backends: tuple[Backend, ...] = ()


@dataclass(frozen=True, slots=True)
class Recognised:
    """A key version whose octets somebody presented. `retired_at` None: the current version."""

    ref: KeyRef
    retired_at: float | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change: who did what to which thing, and when. Never a value.

    `number` counts up from one change to the next.
    """

    at: float
    actor: str
    action: str
    tenant: str
    subject: str
    number: int = field(default=0, compare=False)


class AuditWanted(TypedDict, total=False):
    """Which entries: of one tenant, numbered below `before`, not older than `since` (Unix seconds),
    by exactly this actor, of an action by its first words (`key`: every act on a key). What is not
    named: all."""

    tenant: str | None
    before: int | None
    since: float | None
    action: str | None
    actor: str | None


@dataclass(frozen=True, slots=True)
class AuditFault:
    """Where the audit log is not as keyrelay wrote it: the number of a row, and what is wrong."""

    row: int
    what: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The audit log from end to end. `since`: the time of its first row, None where there is none.

    `faults` in order of the rows, few of them if there are many; `notable`: rows that say what a
    reader should know of the log itself: where its chain began, an older database was accepted.
    """

    rows: int
    since: float | None
    faults: tuple[AuditFault, ...] = ()
    notable: tuple[AuditEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Purge:
    """Answers stored up to `at` are over; `tenant` or `service` None: every one."""

    at: float
    tenant: str | None = None
    service: str | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What an import wants to be there."""

    keys: tuple[NewKey, ...] = ()
    backends: tuple[Backend, ...] = ()


Done = Literal["added", "unchanged", "conflict", "replaced"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an import did, or would have done, with one thing. `name`: a key's alias, or a place."""

    done: Done
    kind: str
    tenant: str
    service: str
    name: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What an import did with each thing, in its order. `written` False: nothing was changed."""

    outcomes: tuple[Outcome, ...]
    written: bool

    @property
    def conflicts(self) -> tuple[Outcome, ...]:
        """The keys whose stored value differs; with one of them nothing at all was written."""
        return tuple(outcome for outcome in self.outcomes if outcome.done == "conflict")


Guard = Secret | Literal["as before", "none"]
"""What is to guard the master key's file: a new passphrase, what guarded it before, or nothing."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation of the master key did.

    `source`: where the master keys are; `resumed`: it finished one that was interrupted;
    `rewrapped`: how many data keys have a new wrapping; `resealed`: how many keys were sealed anew.
    """

    source: str
    resumed: bool = False
    rewrapped: int = 0
    resealed: int = 0


@dataclass(frozen=True, slots=True)
class BackupMade:
    """What a backup holds: names of files. `outside`: where the master key is that it lacks."""

    files: tuple[str, ...]
    outside: str | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """From which database to which a vault was moved, and how many rows of each table."""

    left: str
    entered: str
    rows: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Restored:
    """Which files came out of a backup, and when it was made (Unix seconds)."""

    made_at: float
    files: tuple[str, ...]
