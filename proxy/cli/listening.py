"""The sockets that a server listens on, and where they are found."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from proxy.cli.failures import Failed
from proxy.config import Config

BACKLOG: Final = 2048
LOOPBACK_REACHES: Final = frozenset(
    {"127.0.0.1", "::1", "0.0.0.0", "::"}  # noqa: S104 - compared only
)
PLAIN: Final = frozenset({"metrics"})
"""Listeners without TLS whatever the others speak: for a scraper nearby."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where callers come, and what else listens `apart`, by name. `secured`: they speak TLS."""

    callers: socket.socket
    apart: Mapping[str, socket.socket]
    secured: bool

    def named(self, name: str = "") -> socket.socket:
        """What listens apart, or for callers."""
        return self.apart[name] if name else self.callers

    def words(self, data: str) -> str:
        """Where the server is found."""
        apart = [f"{name} on {self.url(name)}/{name}" for name in self.apart]
        return ", ".join([f"keyrelay listens on {self.url()}", *apart, data])

    def url(self, name: str = "") -> str:
        """Where one of them is found."""
        host, port = self.named(name).getsockname()[:2]
        scheme = "https" if self.speaks_tls(name) else "http"
        if ip_address(host).is_unspecified:
            host = "::1" if ":" in host else "127.0.0.1"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def speaks_tls(self, name: str = "") -> bool:
        """Whether one of them does."""
        return self.secured and name not in PLAIN

    @property
    def places(self) -> frozenset[tuple[str, int]]:
        """By which hosts and ports they are reached."""
        return _places(self.callers).union(*map(_places, self.apart.values()))

    def close(self) -> None:
        """Nobody comes any more, to this process."""
        for one in (self.callers, *self.apart.values()):
            one.close()


@contextlib.contextmanager
def listening(config: Config, host: str, port: int, secured: bool) -> Iterator[Listeners]:
    """All that the configuration wants, open as long as the context lasts; raises Failed."""
    server = config.server
    apart = {"metrics": server.metrics_listen, "admin": server.admin_listen}
    with contextlib.ExitStack() as stack:
        callers = stack.enter_context(contextlib.closing(listen(host, port)))
        others = {
            name: stack.enter_context(
                contextlib.closing(listen(*place, remedy=f"another server.{name}_listen"))
            )
            for name, place in apart.items()
            if place is not None
        }
        yield Listeners(callers, others, secured)


def listen(host: str, port: int, remedy: str = "another --port") -> socket.socket:
    """A listening socket; raises Failed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = (error.strerror or type(error).__name__).lower()
        raise Failed(f"can't listen on {host} port {port}: {reason}; use {remedy}") from error
    return listener


def _places(listener: socket.socket) -> frozenset[tuple[str, int]]:
    host, port = listener.getsockname()[:2]
    names = {host, "localhost"} if host in LOOPBACK_REACHES else {host}
    return frozenset((name, port) for name in names)
