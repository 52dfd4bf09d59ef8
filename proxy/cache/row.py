"""An entry as a row and its sealed parts, each bound to the row by associated data."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from proxy.cache.entry import Entry
from vault import Sealer

CHUNK = 256 << 10
"""Octets of a body that are sealed together."""


@dataclass(frozen=True, slots=True)
class Row:
    """The columns of a row that are read; `head` is sealed: status, fields and size."""

    id: int
    key: bytes
    vary: bytes
    variant: bytes
    tenant: str
    service: str
    requested_at: float
    made_at: float
    expires_at: float
    head: bytes = b""

    @classmethod
    def of(cls, number: int, entry: Entry) -> Row:
        """The row of an entry, before its head is sealed."""
        return cls(number, *_common(entry))

    @property
    def common(self) -> tuple[Any, ...]:
        """The columns that are the entry's own, in the order of COMMON."""
        return _common(self)

    def bound(self, part: str) -> bytes:
        """The associated data of one part: all of the row, so that no part opens elsewhere."""
        octets = (self.key.hex(), self.vary.hex(), self.variant.hex())
        times = (float(self.requested_at), float(self.made_at), float(self.expires_at))
        return json.dumps(
            ("keyrelay cache 1", part, self.id, self.tenant, self.service, octets, times)
        ).encode()

    def seal_head(self, entry: Entry, sealer: Sealer) -> bytes:
        """Status, size and fields, sealed."""
        pairs = [(name.decode("latin-1"), text.decode("latin-1")) for name, text in entry.fields]
        head = json.dumps((entry.status, entry.size, pairs))
        return sealer.seal(head.encode(), self.bound("head"))

    def open(self, sealer: Sealer) -> Entry:
        """The entry; raises VaultError when anything was changed."""
        status, size, pairs = json.loads(sealer.open(self.head, self.bound("head")))
        common: dict[str, Any] = {name: getattr(self, name) for name in COMMON}
        kept = tuple((name.encode("latin-1"), text.encode("latin-1")) for name, text in pairs)
        return Entry(**common, status=status, fields=kept, size=size)

    def seal_chunk(self, number: int, octets: bytes, sealer: Sealer) -> bytes:
        """A piece of the body, sealed."""
        return sealer.seal(octets, self.bound(f"chunk {number}"))

    def open_chunk(self, number: int, sealed: bytes, sealer: Sealer) -> bytes:
        """A piece of the body; raises VaultError when anything was changed."""
        return sealer.open(sealed, self.bound(f"chunk {number}"))


COMMON = tuple(field.name for field in fields(Row))[1:-1]
_common = attrgetter(*COMMON)
COLUMNS = ", ".join(field.name for field in fields(Row))
