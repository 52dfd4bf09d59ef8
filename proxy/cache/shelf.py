"""A stored answer in Redis: its names, its label and its octets; pure."""

from __future__ import annotations

import struct
from typing import NamedTuple

from proxy.cache.entry import Entry
from proxy.cache.row import CHUNK, Row
from vault import Sealer

INLINE = 16 << 10
"""Octets of a body that lie on the shelf itself: one question finds them."""

_TIMES = struct.Struct(">dddHHI")


class Label(NamedTuple):
    """The field of an answer on its shelf. `ends`, `asked`: milliseconds of Unix time. Redis puts
    the order of arrival before it."""

    number: int
    ends: int
    chunks: int
    cost: int
    asked: int
    vary: bytes
    variant: bytes

    @classmethod
    def of(cls, number: int, entry: Entry) -> Label:
        """Of a new answer."""
        times = int(entry.expires_at * 1000), int(entry.requested_at * 1000)
        number_of = chunks_of(entry.size)
        return cls(number, times[0], number_of, entry.cost, times[1], entry.vary, entry.variant)

    @property
    def octets(self) -> bytes:
        """As it is sent."""
        numbers = b"%x %d %d %d %d" % self[:5]
        return b"%b %b %b" % (numbers, self.vary.hex().encode(), self.variant)

    @classmethod
    def read(cls, field: bytes) -> Label:
        """Of an answer that was found."""
        _, number, ends, chunks, cost, asked, vary, variant = field.split(b" ", 7)
        numbers = int(ends), int(chunks), int(cost), int(asked)
        return cls(int(number, 16), *numbers, bytes.fromhex(vary.decode()), variant)


def chunks_of(size: int) -> int:
    """How many chunks lie beside the shelf for a body."""
    return 0 if size <= INLINE else -(-size // CHUNK)


def tag_of(key: bytes) -> str:
    """What a key's names have in common: enough of it to tell it from all others."""
    return key.hex()[:32]


def member(tag: str, told: str, service: str) -> str:
    """An answer in its tenant's register. `told`: its number, cost and time, as in its label."""
    return f"{tag} {told} {service}"


class Member(NamedTuple):
    """The same, read."""

    text: bytes
    tag: str
    number: str
    asked: float
    service: str

    @classmethod
    def read(cls, text: bytes) -> Member:
        """As Redis has it."""
        tag, number, _cost, asked, service = text.decode().split(" ", 4)
        return cls(text, tag, number, int(asked) / 1000, service)


def pack(row: Row, body: bytes) -> bytes:
    """The value of a field: what its parts are bound to, the sealed head, a small sealed body."""
    tenant, service = row.tenant.encode(), row.service.encode()
    times = row.requested_at, row.made_at, row.expires_at
    lengths = len(tenant), len(service), len(row.head)
    return b"".join((_TIMES.pack(*times, *lengths), tenant, service, row.head, body))


def unpack(key: bytes, label: Label, value: bytes) -> tuple[Row, bytes]:
    """The row and the sealed body; raises ValueError, struct.error for what is no value."""
    requested, made, expires, tenant, service, head = _TIMES.unpack_from(value)
    ends = [_TIMES.size, _TIMES.size + tenant]
    ends += [ends[-1] + service, ends[-1] + service + head]
    row = Row(
        id=label.number,
        key=key,
        vary=label.vary,
        variant=label.variant,
        tenant=value[ends[0] : ends[1]].decode(),
        service=value[ends[1] : ends[2]].decode(),
        requested_at=requested,
        made_at=made,
        expires_at=expires,
        head=value[ends[2] : ends[3]],
    )
    return row, value[ends[3] :]


def sealed_small(row: Row, octets: bytes, sealer: Sealer) -> bytes:
    """The body that lies on the shelf; nothing for none."""
    return row.seal_chunk(0, octets, sealer) if octets else b""
