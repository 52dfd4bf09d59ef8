"""Sends a request: small ones in one write, streamed ones at the upstream's pace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from proxy.errors import BadRequest
from proxy.messages import RequestBody
from proxy.upstream.wire.connection import MAX_JOINED, Connection
from proxy.upstream.wire.sentences import WRONG_LENGTH

_LAST_CHUNK: Final = b"0\r\n\r\n"


async def upload(connection: Connection, header: bytes, body: RequestBody, seconds: float) -> bool:
    """True once all of it has been handed over; False where the answer came before the end, or
    before the upstream had taken it.

    `seconds`: until the upstream takes more. Raises BadRequest where the body is not as long as
    declared (RFC 9112 section 6.2), and what reading the body raises.
    """
    content = b"" if body.length == 0 else body.at_hand()
    if content is not None and len(content) == body.length and len(content) <= MAX_JOINED:
        connection.write(header + content)
    elif not await _in_parts(connection, header, body, seconds):
        return False
    await connection.until_writable(seconds)
    return not connection.is_backed_up


async def _in_parts(
    connection: Connection, header: bytes, body: RequestBody, seconds: float
) -> bool:
    connection.put(header)
    parts = aiter(body)
    whole = False
    try:
        with connection.uploading():
            whole = await _pass_on(connection, parts, body.length, seconds)
    finally:
        await _dismiss(parts)
    if whole:
        connection.flush()
    return whole


async def _pass_on(
    connection: Connection, parts: AsyncIterator[bytes], length: int | None, seconds: float
) -> bool:
    left = length
    begun = False
    async for part in parts:
        if begun:
            await connection.let_octets_in()
        begun = True
        if left is None:
            connection.put(b"%x\r\n%b\r\n" % (len(part), part))
        else:
            left -= len(part)
            if left < 0:
                break
            connection.put(part)
        await connection.until_writable(seconds)
        if connection.sending_is_pointless:
            return left == 0
    if left:
        raise BadRequest(WRONG_LENGTH)
    if left is None:
        connection.put(_LAST_CHUNK)
    return True


async def _dismiss(parts: AsyncIterator[bytes]) -> None:
    """Let go of a body, read to its end or not."""
    close = getattr(parts, "aclose", None)
    if close is not None:
        await close()
