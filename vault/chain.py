"""The audit log as a chain: each row is bound to the one before it, its end to the whole. Pure."""

from __future__ import annotations

import hmac
from typing import Final, NamedTuple

from vault.errors import RolledBack
from vault.records import AuditEntry
from vault.sealing import KeyedHasher, encode


class Head(NamedTuple):
    """Where the log ends: the number of its last row, and that row's link."""

    rows: int
    link: bytes


START: Final = Head(0, bytes(32))
"""The end of an empty log."""


class State(NamedTuple):
    """How often a vault was changed, and where its audit log ends.

    `seal` None: by releases that did not authenticate that. `head` None: the log is no chain yet.
    `root`: what stands for all rows of the register; None: there is none yet.
    """

    generation: int
    seal: bytes | None
    head: Head | None = None
    root: bytes | None = None


def link_of(hasher: KeyedHasher, before: bytes, number: int, entry: AuditEntry) -> bytes:
    """What binds a row to its number, its contents and the row before; only the keys' owner can.

    Empty, which no link is, for contents of other types than keyrelay writes.
    """
    texts = (entry.actor, entry.action, entry.tenant, entry.subject)
    if not isinstance(entry.at, float) or not all(isinstance(text, str) for text in texts):
        return b""
    octets = (text.encode(errors="surrogatepass") for text in texts)
    return hasher.digest(encode("keyrelay audit row 1", before, number, entry.at.hex(), *octets))


def follow(hasher: KeyedHasher, head: Head, entry: AuditEntry) -> Head:
    """The end of the log behind one more entry."""
    number = head.rows + 1
    return Head(number, link_of(hasher, head.link, number, entry))


def link_in(found: object) -> bytes:
    """What a row that stands there is followed by, whatever somebody has put for its link."""
    return found if isinstance(found, bytes) else START.link


def seal_of(
    hasher: KeyedHasher, generation: int, head: Head | None, root: bytes | None = None
) -> bytes:
    """What authenticates a number of changes, and with it the end of the log and the register."""
    if root is not None:
        rows, link = head or (-1, b"")
        return hasher.digest(encode("keyrelay state 3", generation, rows, link, root))
    if head is None:
        return hasher.digest(encode("keyrelay generation 1", generation))
    return hasher.digest(encode("keyrelay state 2", generation, head.rows, head.link))


def authentic(hasher: KeyedHasher, state: State) -> bool:
    """Whether somebody with the master key wrote this."""
    made = seal_of(hasher, state.generation, state.head, state.root)
    return isinstance(state.seal, bytes) and hmac.compare_digest(made, state.seal)


def judge_seal(hasher: KeyedHasher, state: State, *, registered: bool = False) -> None:
    """Raises RolledBack where the state is not the one that keyrelay wrote.

    `registered`: the vault has had a register before, and so no state without one is its.
    """
    if not authentic(hasher, state) or (registered and state.root is None):
        raise RolledBack(
            "the row vault_state of the vault's database was changed or replayed by somebody who "
            "does not have its master key; restore the database from a backup, or go on with: "
            "keyrelay serve --accept-rollback"
        )
