"""The way out: resolves a name, judges every address, and dials only what it has judged.

Nothing else of the project opens a connection.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Final, Protocol, TypeVar

from proxy.addresses import (
    REGISTERED_LITERAL_MAY_BE,
    REGISTERED_NAME_MAY_BE,
    Address,
    as_literal,
    classify,
)
from proxy.errors import (
    DestinationAddressProhibited,
    DestinationRefused,
    UpstreamNameError,
    UpstreamNameTimeout,
    UpstreamUnreachable,
)
from proxy.reach import Reach

Endpoint = tuple[Address, int]
Dial = Callable[[Address, int], Awaitable[socket.socket]]
"""Connects to one address; raises OSError. Only tests give another than `dial`."""

Spoken = TypeVar("Spoken", bound=asyncio.Protocol)

NEXT_ADDRESS_AFTER: Final = 0.25
"""Seconds until the next address is tried beside the one before (RFC 8305 section 5)."""


def permitted(address: Address, reach: Reach, *, literal: bool) -> bool:
    """Whether this address may be dialled; `literal`: the destination was written as an address.

    An exact registration may be private, never link-local or metadata: clouds hand out their
    credentials there.
    """
    reason = classify(address)
    if reason is None:
        return True
    if reach is not Reach.REGISTERED:
        return False
    return reason in (REGISTERED_LITERAL_MAY_BE if literal else REGISTERED_NAME_MAY_BE)


# Names.


class Resolver(Protocol):
    """Turns names into addresses."""

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Every address of a name, at least one, in the order to try.

        Raises UpstreamNameError, UpstreamNameTimeout.
        """
        ...


class SystemResolver:
    """The machine's own resolver: hosts file, DNS, whatever it is set to."""

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Every address of a name, each once."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._seconds):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise UpstreamNameTimeout(
                "The destination's name was not resolved in time; try again."
            ) from error
        except (OSError, UnicodeError) as error:
            raise UpstreamNameError(
                "The destination's name does not resolve; check its spelling."
            ) from error
        return list(dict.fromkeys(ip_address(str(entry[4][0])) for entry in found))


# Connections.


async def dial(address: Address, port: int) -> socket.socket:
    """A connected, non-blocking socket; raises OSError."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock


async def attach(
    sock: socket.socket, protocol: Callable[[], Spoken]
) -> tuple[asyncio.Transport, Spoken]:
    """A protocol over a connected socket, which is its own from now on."""
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_connection(protocol, sock=sock)
    except BaseException:
        sock.close()
        raise


class Dialler:
    """Resolve, check, dial: the address that was judged is the one that is dialled.

    `own`: where this process listens (a wildcard address stands for every local one); set it again
    when the listeners are known. `dialled`: connections attempted so far.
    """

    def __init__(
        self,
        resolver: Resolver,
        own: frozenset[Endpoint] = frozenset(),
        dial: Dial = dial,
    ) -> None:
        self.own = own
        self.dialled = 0
        self._resolver = resolver
        self._dial = dial

    async def connect(
        self, host: str, port: int, reach: Reach, own_allowed: bool = False
    ) -> socket.socket:
        """A connected, non-blocking socket to the destination; the caller sets the deadline.

        Raises UpstreamNameError, UpstreamNameTimeout, DestinationAddressProhibited,
        DestinationRefused (our own listener), UpstreamUnreachable.
        """
        addresses = await self.addresses(host, port, reach, own_allowed)
        try:
            return await self._first(_alternate(addresses), port)
        except OSError as error:
            raise UpstreamUnreachable(_unreachable(error)) from error

    async def addresses(
        self, host: str, port: int, reach: Reach, own_allowed: bool = False
    ) -> Sequence[Address]:
        """Every address of the destination, all of them permitted; raises as `connect`."""
        literal = as_literal(host)
        found = [literal] if literal is not None else await self._resolver.resolve(host, port)
        if not found:
            raise UpstreamNameError("The destination's name has no address; check its spelling.")
        if not all(permitted(address, reach, literal=literal is not None) for address in found):
            raise DestinationAddressProhibited(
                "The destination has an address that calls may not reach; "
                "an administrator can register it as a backend or as the service's origin."
            )
        if not own_allowed and any(self._is_own(address, port) for address in found):
            raise DestinationRefused(
                "The destination is keyrelay itself; name the provider or the backend instead."
            )
        return found

    def _is_own(self, address: Address, port: int) -> bool:
        listening = {host for host, own_port in self.own if own_port == port}
        wildcard = any(host.is_unspecified for host in listening)
        return address in listening or (wildcard and _is_local(address))

    async def _first(self, addresses: Sequence[Address], port: int) -> socket.socket:
        """The first connection that succeeds; each address has a head start on the next."""
        waiting = list(addresses)
        tasks: list[asyncio.Task[socket.socket]] = []
        winner: asyncio.Task[socket.socket] | None = None
        try:
            while winner is None:
                if waiting:
                    tasks.append(asyncio.create_task(self._attempt(waiting.pop(0), port)))
                await _some_end(tasks, NEXT_ADDRESS_AFTER if waiting else None)
                winner = next((task for task in tasks if _succeeded(task)), None)
                if winner is None and not waiting and all(task.done() for task in tasks):
                    winner = tasks[0]  # the failure that tells most
            return winner.result()
        finally:
            await _dismiss([task for task in tasks if task is not winner])

    async def _attempt(self, address: Address, port: int) -> socket.socket:
        self.dialled += 1
        return await self._dial(address, port)


def _alternate(addresses: Sequence[Address]) -> list[Address]:
    """Families in turn, beginning with the resolver's first (RFC 8305 section 4)."""
    first = [address for address in addresses if address.version == addresses[0].version]
    other = [address for address in addresses if address.version != addresses[0].version]
    pairs = zip(first, other, strict=False)
    rest = first[len(other) :] or other[len(first) :]
    return [address for pair in pairs for address in pair] + rest


async def _some_end(tasks: Sequence[asyncio.Task[socket.socket]], seconds: float | None) -> None:
    running = [task for task in tasks if not task.done()]
    if running:
        await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


def _succeeded(task: asyncio.Task[socket.socket]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


async def _dismiss(tasks: Sequence[asyncio.Task[socket.socket]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if _succeeded(task):
            task.result().close()


def _is_local(address: Address) -> bool:
    """Whether this machine has the address: only then can a socket be bound to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


def _unreachable(error: OSError) -> str:
    if error.errno == errno.ECONNREFUSED:
        return "The destination refused the connection; check that it runs and its port."
    return "No connection to the destination could be made; check that it can be reached."
