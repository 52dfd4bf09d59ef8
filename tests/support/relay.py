"""A whole keyrelay over real sockets, in the test's own process and event loop."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.app import Relay, Surroundings, assemble
from proxy.certificate import Certificate
from proxy.cli.doors import MOST_HANDLES, Doors
from proxy.cli.server import WAITS, Server
from proxy.clock import Clock, SystemClock
from proxy.config import Config, load_config
from proxy.destinations import parse_registration
from proxy.door import Door
from proxy.network import Resolver
from proxy.patience import Waits
from proxy.services import Services, load_services
from proxy.threshold import Agreements
from tests.support.canaries import Pages
from tests.support.vaults import begin
from vault import Backend, NewKey, NewToken, Secret, Vault, open_vault

_running: set[Path] = set()
"""Where some run now. Two at a time are two vaults, each with keys of its own."""


@dataclass
class Running:
    """What a scenario needs to know of a running server."""

    url: str
    data: Path
    vault: Vault
    services: Services
    relay: Relay
    token: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    async def add_key(
        self, service: str, tenant: str = "default", alias: str = "default", **parts: str
    ) -> None:
        credential = {name: Secret(text.encode()) for name, text in parts.items()}
        await self.vault.put_key(NewKey(tenant, service, alias, credential))

    async def add_backend(self, service: str, url: str, tenant: str = "default") -> None:
        await self.vault.add_backend(Backend(tenant, service, parse_registration(url)))

    async def issue(self, name: str = "caller", tenant: str = "default", **more: Any) -> str:
        _, text = await self.vault.issue_token(NewToken(tenant, name, **more))
        return text


def listener() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


@contextlib.asynccontextmanager
async def running_relay(
    data: Path,
    services: Mapping[str, Any] | None = None,
    settings: Config | str | None = None,
    clock: Clock | None = None,
    resolver: Resolver | None = None,
    waits: Waits = WAITS,
    certificate: Certificate | None = None,
    name: str = "everything",
) -> AsyncIterator[Running]:
    """A server on a free port with a token for everything, of that name. `settings`: a Config or
    YAML text."""
    clock = clock or SystemClock()
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = settings if isinstance(settings, Config) else _config(data, settings)
    registry = load_services({**config.services, **(services or {})})
    place = config.vault.url
    url = None if place is None else place.text
    if url is None and not _running:
        begin(data)
    vault = await open_vault(data, {}, clock, url=url, create=True, actor="test")
    sock = listener()
    port = sock.getsockname()[1]
    listening = frozenset({("127.0.0.1", port), ("localhost", port)})
    doors = Doors(config, clock, MOST_HANDLES)
    around = Surroundings(data, clock, listening, resolver, arrivals=doors.arrivals)
    relay = await assemble(config, registry, vault, around)
    relay._pages = Pages(relay._pages)
    entrance: Door | Agreements = doors.callers
    if certificate is not None:
        entrance = Agreements(lambda: certificate.context, doors.callers, waits.header)
    server = Server(relay, sock, waits, entrance=entrance)
    await relay.start()
    _running.add(data)
    try:
        async with server.running():
            scheme = "http" if certificate is None else "https"
            up = Running(f"{scheme}://127.0.0.1:{port}", data, vault, registry, relay)
            up.extra["door"] = doors.callers
            up.token = await up.issue(name)
            yield up
    finally:
        _running.discard(data)
        await relay.stop()
        await vault.close()
        sock.close()


def _config(data: Path, text: str | None) -> Config:
    if text is None:
        return Config()
    path = data / "settings.yaml"
    path.write_text(text)
    return load_config(path, {})
