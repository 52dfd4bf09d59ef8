"""A caller that speaks octets: what no HTTP client would send, and what none would show."""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.canaries import LEDGER, TOKEN

OWN_PAGES = ("/metrics", "/usage", "/admin/api/", "/health", "/errors")
"""Where every answer is keyrelay's own, but for pages for people: one of them shows a new token."""


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

    def looked_at(self, target: str) -> Answered:
        """It, once a token that it makes is known, or no secret was found in what says none."""
        kind = self.header("content-type") or ""
        if self.status == 201:
            for found in TOKEN.finditer(self.body.decode("latin-1")):
                LEDGER.token(found[0])
        elif kind == "application/problem+json" or target.startswith(OWN_PAGES):
            fields = "".join(f"{name}: {text}\n" for name, text in self.headers)
            octets = fields.encode("latin-1") + self.body
            LEDGER.look(f"the answer {self.status} to {target[:24]}", octets)
        return self


class Caller:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.target = ""

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
        self.target = target
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
        return whole.looked_at(self.target)

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
