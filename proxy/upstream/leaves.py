"""The leaves that can send a prepared request, by their names in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from proxy.upstream.transport import Transport as HttpcoreTransport
from proxy.upstream.wire.transport import WireTransport

Transport = HttpcoreTransport | WireTransport

TRANSPORTS: Final[Mapping[str, type[HttpcoreTransport] | type[WireTransport]]] = {
    "wire": WireTransport,
    "httpx": HttpcoreTransport,
}
