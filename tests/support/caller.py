"""A caller that speaks octets: what no HTTP client would send, and what none would show."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.canaries import LEDGER, TOKEN

CALL = re.compile(r"(https?://[^/]*)?/proxy")
"""Everything else is answered by keyrelay itself."""


@dataclass(frozen=True)
class Answered:
    """A whole answer as it came."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    complete: bool = True

    def header(self, name: str) -> str | None:
        return next((text for key, text in self.headers if key.lower() == name.lower()), None)

    def all(self, name: str) -> list[str]:
        return [text for key, text in self.headers if key.lower() == name.lower()]

    def json(self) -> Any:
        return json.loads(self.body)

    def is_own(self, target: str) -> bool:
        """Whether keyrelay says it, and no upstream."""
        by = self.header("proxy-status") or ""
        return by.startswith("keyrelay") or not CALL.match(target) or self._is_problem

    @property
    def _is_problem(self) -> bool:
        return self.header("content-type") == "application/problem+json"

    def looked_at(self, target: str, known: frozenset[str] | None = None) -> Answered:
        """It, once no secret was found in what keyrelay says itself; and a token that it makes is
        known. `known`: what was secret before it was asked for."""
        if self.is_own(target):
            fields = "".join(f"{name}: {text}\n" for name, text in self.headers)
            octets = fields.encode("latin-1") + self.body
            LEDGER.look(f"the answer {self.status} to {target[:24]}", octets, among=known)
        if self.status == 201 or target.startswith("/admin/tokens"):
            for found in TOKEN.finditer(self.body.decode("latin-1")):
                LEDGER.token(found[0])
        return self


class Caller:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.target = ""
        self.known: frozenset[str] | None = None
        self.typed: set[str] = set()

    @classmethod
    async def connect(
        cls, url: str, tls: ssl.SSLContext | None = None, address: str | None = None
    ) -> Caller:
        """`address`: where it comes from."""
        parts, near = urlsplit(url), None if address is None else (address, 0)
        there = asyncio.open_connection(parts.hostname, parts.port, ssl=tls, local_addr=near)
        return cls(*await there)

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def request(
        self, method: str, target: str, *headers: tuple[str, str], body: bytes | None = None
    ) -> None:
        self.target, self.known, self.typed = target, LEDGER.secrets, LEDGER.found(body or b"")
        lines = [f"{method} {target} HTTP/1.1", "Host: relay.test"]
        lines += [f"{name}: {text}" for name, text in headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))

    async def head(self) -> Answered:
        """The header of the next answer; its body is still to be read."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines if line]
        return Answered(int(first.split()[1]), [(key, text) for key, text in pairs], b"")

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty at its end."""
        size = int(await self.reader.readline(), 16)
        data = await self.reader.readexactly(size + 2)
        if not CALL.match(self.target):
            LEDGER.look(f"what comes from {self.target[:24]}", data, among=self.known)
        return data[:-2]

    async def answer(self, method: str = "GET") -> Answered:
        """The next answer, whole or cut."""
        head = await self.head()
        body, complete = bytearray(), True
        try:
            if method == "HEAD" or head.status in (204, 304):
                pass
            elif (length := head.header("content-length")) is not None:
                body += await self.reader.readexactly(int(length))
            else:
                while data := await self.chunk():
                    body += data
        except (asyncio.IncompleteReadError, ValueError) as error:
            complete = False
            body += getattr(error, "partial", b"")
        whole = Answered(head.status, head.headers, bytes(body), complete)
        is_form = (whole.header("content-type") or "").startswith("text/html")
        known = self.known - self.typed if is_form and self.known else self.known
        return whole.looked_at(self.target, known)

    async def closed(self) -> bool:
        """Whether the server ends the connection without another octet."""
        return await self.reader.read() == b""

    async def close(self) -> None:
        self.writer.close()

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def call(
    url: str,
    method: str,
    target: str,
    *headers: tuple[str, str],
    body: bytes | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answered:
    """One request on a connection of its own."""
    async with await Caller.connect(url, tls) as caller:
        await caller.request(method, target, *headers, body=body)
        return await caller.answer(method)
