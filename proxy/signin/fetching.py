"""The documents of an issuer, over the way that calls go: judged addresses, no redirect, bounds."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from proxy.config.signin import IssuerEntry, key_place
from proxy.destinations import Target
from proxy.errors import RelayError
from proxy.messages import NoBody, Response
from proxy.reach import Reach
from proxy.signin.jwt import Unreadable, read_object
from proxy.upstream.leaves import Transport
from proxy.upstream.transport import Deadlines, OutboundRequest

MOST_OCTETS: Final = 2**20
SECONDS: Final = 10.0
"""How large a document may be, and how long all of them may take."""

DISCOVERY: Final = "/.well-known/openid-configuration"
_DEADLINES: Final = Deadlines(connect=5, write=5, first_byte=5, idle=5, total=SECONDS)
_FIELDS: Final = ((b"accept", b"application/json"), (b"user-agent", b"keyrelay"))


class Failed(Exception):
    """The keys did not come; the words are for the log."""


class Fetches(Protocol):
    """Whoever brings an issuer's keys."""

    async def keys(self, entry: IssuerEntry) -> bytes:
        """The octets of its JWK Set; raises Failed."""
        ...


class Fetcher:
    """Asks over a transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def keys(self, entry: IssuerEntry) -> bytes:
        """The octets of an issuer's JWK Set; raises Failed."""
        try:
            async with asyncio.timeout(SECONDS):
                if entry.jwks is not None:
                    return await self._get(key_place(entry.jwks), Reach.REGISTERED)
                return await self._get(*await self._discovered(entry))
        except RelayError as error:
            raise Failed(error.detail.rstrip(".")) from error
        except Unreadable as error:
            raise Failed(f"its document can't be read: {error}") from error
        except TimeoutError as error:
            raise Failed(f"its keys did not come within {SECONDS:g} seconds") from error

    async def _discovered(self, entry: IssuerEntry) -> tuple[Target, Reach]:
        """OpenID Connect Discovery section 4. What a document names is no registration: only the
        issuer's own place may be a private one."""
        issuer = key_place(entry.issuer)
        place = key_place(entry.issuer.rstrip("/") + DISCOVERY)
        document = read_object(await self._get(place, Reach.REGISTERED))
        named = document.get("jwks_uri")
        if document.get("issuer") != entry.issuer or not isinstance(named, str):
            raise Failed("its discovery document is of another issuer, or names no jwks_uri")
        try:
            target = key_place(named)
        except ValueError as error:
            raise Failed(f"its jwks_uri is not acceptable: {error}") from error
        own = (target.scheme, target.authority) == (issuer.scheme, issuer.authority)
        return target, Reach.REGISTERED if own else Reach.PUBLIC

    async def _get(self, target: Target, reach: Reach) -> bytes:
        outbound = OutboundRequest(
            "GET", target, _FIELDS, NoBody(), reach, deadlines=_DEADLINES, partition="sign-in"
        )
        async with self._transport.send(outbound) as response:
            if response.status != 200:
                raise Failed(f"it answered with status {response.status}, expected 200")
            return await _whole(response)


async def _whole(response: Response) -> bytes:
    octets = bytearray()
    async for chunk in response.body:
        octets += chunk
        if len(octets) > MOST_OCTETS:
            raise Failed(f"its document is larger than {MOST_OCTETS} octets")
    return bytes(octets)
