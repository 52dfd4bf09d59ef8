"""Names and connections that a test decides: no DNS, and public addresses that are loopback."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from ipaddress import ip_address

from proxy.addresses import Address
from proxy.errors import UpstreamNameError
from proxy.network import dial

PUBLIC = "93.184.215.14"
"""An address that counts as public; nothing is ever sent there, see `FakeWires`."""


class FakeResolver:
    """Answers from a table; a list of lists answers in turn, and its last one repeats.

    `FakeResolver({"api.example.com": ["93.184.215.14"], "rebind.test": [["1.1.1.1"], ["::1"]]})`
    A value may be an exception to raise. `asked` records every question.
    """

    def __init__(
        self,
        names: Mapping[str, Sequence[str] | Sequence[Sequence[str]] | Exception] | None = None,
        *,
        default: Sequence[str] | None = None,
    ) -> None:
        self.names = dict(names or {})
        self.default = default
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        found = self.names.get(host, self.default)
        if isinstance(found, Exception):
            raise found
        if found is None:
            raise UpstreamNameError("The destination's name does not resolve.")
        if found and not isinstance(found[0], str):
            turn = found[0]
            self.names[host] = found[1:] or found
            return [ip_address(text) for text in turn]
        return [ip_address(str(text)) for text in found]


class FakeWires:
    """A `Dial` that leads addresses to loopback ports: `{("93.184.215.14", 443): origin.port}`.

    A port alone, `{443: origin.port}`, leads every address. What isn't in the table is refused as a
    closed port is; `dialled` records every attempt, in order.
    """

    def __init__(self, ports: Mapping[tuple[str, int] | int, int] | None = None) -> None:
        self.ports = dict(ports or {})
        self.dialled: list[tuple[str, int]] = []

    async def __call__(self, address: Address, port: int) -> socket.socket:
        self.dialled.append((str(address), port))
        found = self.ports.get((str(address), port), self.ports.get(port))
        if found is None:
            raise ConnectionRefusedError(111, "refused")
        return await dial(ip_address("127.0.0.1"), found)
