"""What a request target asks for, and the request around it; immutable."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from proxy.errors import RelayError
from proxy.messages import Fields, RequestBody
from proxy.trace import Trace


class ServiceNames(Protocol):
    """What the grammar needs to know of the services."""

    @property
    def names(self) -> Collection[str]:
        """Every name and alias."""
        ...

    def canonical(self, name: str) -> str | None:
        """The name that a name or an alias stands for; None when unknown."""
        ...

    def base(self, name: str) -> str | None:
        """Scheme and authority (and path, if any) for the path form; None where tenants differ."""
        ...


@dataclass(frozen=True, slots=True)
class Directions:
    """What a request target asks for.

    `url`: where to, joined and with the target's own query; not yet judged, and ASCII but for an
    international host. `service`: canonical name, None where the caller named none. `cache`: Unix
    seconds.
    """

    url: str
    service: str | None = None
    cache: int | None = None
    invalidate: bool = False


class Call(NamedTuple):
    """A request as it came in. `directions` holds the refusal where the target can't be read,
    so that authentication may come first. `head`: a hash of method, target and all fields but
    Content-Length; empty: nothing is remembered of this call. `parent`: the caller's traceparent,
    which is in neither; `trace`: ours, where calls are traced. `peer`: the address that it comes
    from, or empty.
    """

    method: str
    directions: Directions | RelayError
    fields: Fields
    body: RequestBody
    id: str
    head: bytes = b""
    parent: bytes = b""
    trace: Trace | None = None
    peer: str = ""
