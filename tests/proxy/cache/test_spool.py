"""Octets in memory, then in a nameless file, read while they arrive."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.cache.spool import PIECE, PrefixGoneError, ReadBody, Spool, read_body
from tests.proxy.cache.conftest import Body


async def content(spool: Spool, place: int = 0) -> bytes:
    out = b""
    while place < spool.size:
        piece = await spool.read(place)
        place += len(piece)
        out += piece
    return out


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", no_room)


async def test_octets_stay_in_memory_up_to_the_limit() -> None:
    """Nothing touches the disk while it is small."""
    spool = Spool(4, 100)
    spool.append(b"abcd")
    assert not spool.heavy
    assert spool.in_memory() == b"abcd"
    assert await content(spool) == b"abcd"
    assert await spool.read(4) == b""
    spool.close()


async def test_octets_above_the_limit_move_to_a_nameless_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unlinked at once; what came later is in memory again."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = Spool(4, 100)
    spool.append(b"abcdef")
    assert spool.heavy
    await spool.spill()
    spool.append(b"gh")
    assert spool.in_memory() is None
    assert await content(spool) == b"abcdefgh"
    assert await content(spool, 3) == b"defgh"
    assert list(tmp_path.iterdir()) == []
    spool.close()


async def test_nobody_else_can_read_what_is_in_the_file() -> None:
    """Nor tell which of it is equal, once around the ring and again; this process can read it, from
    any place on."""
    spool, said = Spool(1, 960), b""
    assert spool._file is None
    for octets in (bytes(27), bytes(933), bytes(960)):
        spool.append(octets)
        await spool.spill()
        assert spool._file is not None
        there = os.pread(spool._file.fileno(), 10_000, 0)
        said += there if octets == bytes(960) else there[-len(octets) :]
    blocks = [said[at : at + 16] for at in range(0, len(said), 16)]
    assert (len(blocks), len(set(blocks))) == (120, 120)
    for place in range(960, 1920, 13):
        assert await content(spool, place) == bytes(1920 - place)
    spool.close()


async def test_large_octets_are_read_in_pieces() -> None:
    """A reader never gets all of a large body at once."""
    spool = Spool(10, 10 * PIECE)
    octets = os.urandom(2 * PIECE + 5)
    spool.append(octets)
    assert len(await spool.read(0)) == PIECE
    await spool.spill()
    assert len(await spool.read(0)) == PIECE
    assert await content(spool) == octets
    spool.close()


@pytest.mark.parametrize("size", [1, 3, 7, 100])
async def test_blocks_have_one_size(size: int) -> None:
    """The last may be shorter."""
    spool = Spool(2, 100)
    for octets in (b"abc", b"defgh", b"ij"):
        spool.append(octets)
        await spool.spill()
    blocks = [block async for block in spool.blocks(size)]
    assert b"".join(blocks) == b"abcdefghij"
    assert all(len(block) == size for block in blocks[:-1])
    spool.close()


async def test_the_file_keeps_the_newest_octets_only() -> None:
    """A ring: what is too old is gone, what is not stays readable across the seam."""
    spool = Spool(2, 8)
    for octets in (b"abcde", b"fghij", b"klm"):
        spool.append(octets)
        await spool.spill()
    spool.append(b"no")
    assert await content(spool, 5) == b"fghijklmno"
    with pytest.raises(PrefixGoneError):
        await spool.read(4)
    spool.close()


async def test_octets_overwritten_while_they_are_read_are_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reader never gets octets of another place."""
    spool = Spool(2, 4)
    spool.append(b"abcd")
    await spool.spill()
    read = spool._read

    def slow(place: int, count: int) -> bytes:
        octets = read(place, count)
        spool._floor = 2
        return octets

    monkeypatch.setattr(spool, "_read", slow)
    with pytest.raises(PrefixGoneError):
        await spool.read(0)
    spool.close()


async def test_a_full_disk_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written stays in memory, until it is dropped on purpose."""
    spool = Spool(2, 100)
    spool.append(b"abcdef")
    full_disk(monkeypatch)
    with pytest.raises(OSError, match="No space"):
        await spool.spill()
    assert await content(spool) == b"abcdef"
    spool.trim(4)
    spool.trim(2)
    assert await content(spool, 4) == b"ef"
    with pytest.raises(PrefixGoneError):
        await spool.read(3)
    spool.close()


async def test_what_was_dropped_without_being_written_is_gone_for_good() -> None:
    """Also when the disk has room again: nobody gets what the file has in its place."""
    spool = Spool(2, 100)
    for octets in (b"abcd", b"efgh"):
        spool.append(octets)
        await spool.spill()
    spool.append(b"ijkl")
    spool.trim(10)
    spool.append(b"mn")
    await spool.spill()
    for place in (0, 7, 9):
        with pytest.raises(PrefixGoneError):
            await spool.read(place)
    assert await content(spool, 10) == b"klmn"
    spool.close()


async def test_a_closed_spool_never_touches_a_descriptor() -> None:
    """A thread that comes too late must not meet a descriptor that was used anew."""
    spool = Spool(2, 100)
    spool.append(b"abcdef")
    await spool.spill()
    spool.close()
    with pytest.raises(PrefixGoneError):
        await spool.read(0)


class AtHand(Body):
    """One that has come at once."""

    def at_hand(self) -> bytes | None:
        return b"".join(self.chunks)


async def read(body: Body, memory: int = 100, limit: int = 100) -> tuple[ReadBody, bytes]:
    absorbed: list[bytes] = []
    done = await read_body(body, absorbed.append, memory, limit)
    return done, b"".join(absorbed)


async def test_a_body_is_read_and_can_be_sent_more_than_once() -> None:
    """Whoever leads next sends it again."""
    body, absorbed = await read(Body(b"abc", b"def", announced=False), memory=2)
    assert body.length == 6
    assert body.rest is None
    for _ in range(2):
        assert b"".join([chunk async for chunk in body]) == absorbed == b"abcdef"
    body.release()


async def test_a_small_body_is_sent_out_of_memory() -> None:
    """One that has come at once, as often as it is wanted; without octets there is no chunk."""
    body, absorbed = await read(AtHand(b"abc"))
    assert (absorbed, body.length, body.at_hand()) == (b"abc", 3, b"abc")
    for _ in range(2):
        assert [chunk async for chunk in body] == [b"abc"]
    body.release()
    empty, _ = await read(AtHand())
    assert [chunk async for chunk in empty] == []
    empty.release()


async def test_no_body_is_not_waited_for() -> None:
    """Nothing is read where nothing was announced."""
    empty = Body()
    body, absorbed = await read(empty)
    assert (body.length, absorbed) == (0, b"")
    body.release()


async def test_a_body_above_the_limit_goes_on_unread() -> None:
    """Contract 6: a body above `max_keyed_body_bytes` streams through."""
    source = Body(b"abc", b"def", b"ghi", announced=False)
    body, _ = await read(source, limit=5)
    assert source.read == 6
    assert body.rest is not None
    assert (body.length, body.rest.detail) == (None, "body-too-large")
    assert b"".join([chunk async for chunk in body]) == b"abcdefghi"
    body.release()


async def test_a_body_that_the_disk_has_no_room_for_goes_on_unread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full disk never fails a request."""
    full_disk(monkeypatch)
    body, _ = await read(Body(b"abc", b"def"), memory=1)
    assert body.rest is not None
    assert (body.length, body.rest.detail) == (6, "store-error")
    assert b"".join([chunk async for chunk in body]) == b"abcdef"
    body.release()


async def test_a_body_that_breaks_breaks_the_call() -> None:
    """The caller hung up while sending."""

    class Broken(Body):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"a"
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await read(Broken(b"abc"))


async def test_the_last_holder_closes_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flight may need it longer than its caller."""
    body, _ = await read(Body(b"abc", b"def"), memory=1)
    body.hold()
    body.release()
    assert b"".join([chunk async for chunk in body]) == b"abcdef"
    body.release()
    with pytest.raises(PrefixGoneError):
        await anext(aiter(body))
