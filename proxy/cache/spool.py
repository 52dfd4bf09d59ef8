"""Octets that are read while they still arrive: in memory first, then in a file without a name,
where nobody can read them but the process that wrote them."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO, Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from proxy.messages import RequestBody

PIECE = 256 << 10
"""Octets given out at a time."""


class PrefixGoneError(LookupError):
    """The octets at this place have been dropped."""


class _Veil:
    """Makes octets unreadable, and readable again, from any place on: AES-256 in counter mode (NIST
    SP 800-38A section 6.5) under a key that is nowhere but in memory. Nothing authenticates them.

    The counter goes by the place in the stream, not in the file, and the octets at a place never
    become others: so no two are ever under the same of it.
    """

    _BLOCK: Final = 16

    def __init__(self) -> None:
        self._cipher = AES256(os.urandom(32))

    def over(self, octets: bytes, place: int) -> bytes:
        """Those that stand at `place`; twice over they are what they were."""
        counter, skipped = divmod(place, self._BLOCK)
        stream = Cipher(self._cipher, CTR(counter.to_bytes(self._BLOCK))).encryptor()
        stream.update(bytes(skipped))
        return stream.update(octets)


class Spool:
    """Appended to by one writer, read from any place by many.

    `memory`: octets held in memory before `spill` moves them to the file; `capacity`: how many
    octets before the newest the file keeps. The file has no name, and its octets are veiled: they
    are a caller's own, and an upstream may have repeated a key in them.
    """

    def __init__(self, memory: int, capacity: int) -> None:
        self.size = 0
        self._limit = memory
        self._capacity = capacity
        self._memory = bytearray()
        self._whole: bytes | None = None  # all of them, once nothing more comes
        self._base = 0  # where the memory begins
        self._floor = 0  # the first octet that the file still holds
        self._written = 0  # the end of what the file holds
        self._file: BinaryIO | None = None
        self._closed = False
        self._file_lock = threading.Lock()  # a thread must never meet a descriptor used anew

    @property
    def held(self) -> int:
        """Octets in memory."""
        return len(self._memory) if self._whole is None else len(self._whole)

    @property
    def heavy(self) -> bool:
        """Whether it is time to spill."""
        return len(self._memory) > self._limit

    def append(self, chunk: bytes) -> None:
        """Adds octets at the end."""
        self._memory += chunk
        self.size += len(chunk)

    async def spill(self) -> None:
        """Moves what is in memory to the file; raises OSError, and then it still is in memory."""
        block = bytes(self._memory)
        self._floor = max(self._floor, self._base + len(block) - self._capacity)
        await asyncio.to_thread(self._write, block, self._base)
        self._written = self._base + len(block)
        self._drop_memory(len(block))

    def trim(self, place: int) -> None:
        """Drops from memory what stands before `place`, without writing it anywhere."""
        if place > self._base:
            self._drop_memory(place - self._base)
            self._floor = self._base  # the file has a gap there, whatever it holds before it

    def in_memory(self) -> bytes | None:
        """All octets, when none has left the memory; asked for when no more are to come.

        Always the same object: whoever keeps it takes no more memory than the spool does.
        """
        if self._whole is None and self._base == 0:
            self._whole, self._memory = bytes(self._memory), bytearray()
        return self._whole

    async def read(self, place: int) -> bytes:
        """The next octets from `place` on; empty at the end. Raises PrefixGoneError, OSError."""
        if self._whole is not None:
            return self._whole[place : place + PIECE]
        if place >= self._base:
            start = place - self._base
            with memoryview(self._memory) as octets:
                return bytes(octets[start : start + PIECE])
        if self._floor <= place < self._written:
            read = await asyncio.to_thread(self._read, place, min(PIECE, self._written - place))
            if place >= self._floor:  # not overwritten meanwhile
                return read
        raise PrefixGoneError

    async def blocks(self, size: int) -> AsyncGenerator[bytes, None]:
        """All octets in blocks of `size`; the last may be shorter."""
        place, block = 0, bytearray()
        while place < self.size:
            piece = await self.read(place)
            place += len(piece)
            block += piece
            while len(block) >= size:
                yield bytes(block[:size])
                del block[:size]
        if block:
            yield bytes(block)

    def close(self) -> None:
        """Gives memory and file back."""
        self._memory, self._whole = bytearray(), None
        with self._file_lock:
            self._closed = True
            if self._file is not None:
                self._file.close()

    def _drop_memory(self, count: int) -> None:
        count = min(count, len(self._memory))
        del self._memory[:count]
        self._base += count

    def _write(self, block: bytes, place: int) -> None:
        block = self._veil.over(block, place)
        with self._file_lock:
            descriptor = self._descriptor()
            while block:
                at = place % self._capacity
                count = os.pwrite(descriptor, block[: self._capacity - at], at)
                block, place = block[count:], place + count

    def _read(self, place: int, count: int) -> bytes:
        with self._file_lock:
            at = place % self._capacity
            octets = os.pread(self._descriptor(), min(count, self._capacity - at), at)
        return self._veil.over(octets, place)

    @cached_property
    def _veil(self) -> _Veil:
        return _Veil()

    def _descriptor(self) -> int:
        if self._closed:
            raise PrefixGoneError
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        return self._file.fileno()


@dataclass(frozen=True, slots=True)
class Rest:
    """What was not read of a body, and why; `length`: octets of the whole body, None if unknown.

    `failure`: what the disk said, where it had no room.
    """

    chunks: AsyncIterator[bytes]
    length: int | None
    failure: OSError | None

    @property
    def detail(self) -> str:
        """The reason in one word."""
        return "body-too-large" if self.failure is None else "store-error"


class ReadBody:
    """A request body that was read to be keyed, and can be sent more than once.

    It lies in a spool, or is `octets`. With a `rest` it can't be keyed, and is sent once. Those who
    need it count themselves with `hold` and `release`; the last one closes it.
    """

    def __init__(self, spool: Spool | None, rest: Rest | None = None, octets: bytes = b"") -> None:
        self.rest = rest
        self._spool = spool
        self._octets = octets
        self._holders = 1

    @property
    def length(self) -> int | None:
        """Octets; None where the end is not known."""
        if self.rest is not None:
            return self.rest.length
        return len(self._octets) if self._spool is None else self._spool.size

    def at_hand(self) -> bytes | None:
        """All of it, where it was small enough to come at once."""
        return self._octets if self._spool is None else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._spool is None:
            if self._octets:
                yield self._octets
            return
        place = 0
        while place < self._spool.size:
            piece = await self._spool.read(place)
            place += len(piece)
            yield piece
        if self.rest is not None:
            async for chunk in self.rest.chunks:
                yield chunk

    def hold(self) -> None:
        """One more needs it."""
        self._holders += 1

    def release(self) -> None:
        """One fewer needs it."""
        self._holders -= 1
        if self._holders == 0 and self._spool is not None:
            self._spool.close()


async def read_body(
    body: RequestBody, absorb: Callable[[bytes], None], memory: int, limit: int
) -> ReadBody:
    """Reads a request body while `absorb` takes its octets, up to `limit`.

    One that is larger, or that the disk has no room for, comes back with its rest unread.
    """
    octets = body.at_hand()
    if octets is not None and len(octets) <= limit:
        absorb(octets)
        return ReadBody(None, octets=octets)
    spool = Spool(memory, max(limit, 1))
    chunks = aiter(body)
    try:
        async for chunk in chunks:
            spool.append(chunk)
            failure = await _spill(spool) if spool.heavy and spool.size <= limit else None
            if failure is not None or spool.size > limit:
                return ReadBody(spool, Rest(chunks, body.length, failure))
            absorb(chunk)
    except BaseException:
        spool.close()
        raise
    return ReadBody(spool)


async def _spill(spool: Spool) -> OSError | None:
    try:
        await spool.spill()
    except OSError as error:
        return error
    return None
