"""A collector that takes OTLP over HTTP, at the address that the admin set: no proxies of the
environment, no redirects, no cookies."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final

from proxy.destinations import Target
from proxy.traces.sending import Fate

SECONDS: Final = 5.0
_MOST: Final = 1 << 16
_TYPE: Final = {"Content-Type": "application/x-protobuf"}
_LATER: Final = frozenset({429, 502, 503, 504})
"""The answers after which the same may be sent again (OTLP specification, failures)."""


class OtlpCollector:
    """One connection, kept open. For one thread. `trusted`: judges its certificate."""

    def __init__(self, endpoint: Target, trusted: Callable[[], ssl.SSLContext]) -> None:
        self._endpoint = endpoint
        self._trusted = trusted
        self._connection: HTTPConnection | None = None

    def take(self, octets: bytes) -> tuple[Fate, str]:
        """Sends one body; once more where a connection that was kept open turns out to be dead."""
        kept = self._connection is not None
        status = self._status(octets)
        if kept and isinstance(status, Exception) and not isinstance(status, TimeoutError):
            status = self._status(octets)
        if isinstance(status, Exception):
            return Fate.LATER, type(status).__name__
        if 200 <= status < 300:
            return Fate.TAKEN, ""
        return Fate.LATER if status in _LATER else Fate.REFUSED, f"it answers {status}"

    def close(self) -> None:
        """Lets go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _status(self, octets: bytes) -> int | OSError | HTTPException:
        self._connection = connection = self._connection or self._connect()
        try:
            connection.request("POST", self._endpoint.origin_form, octets, _TYPE)
            answer = connection.getresponse()
            if len(answer.read(_MOST)) == _MOST:
                self.close()
        except (OSError, HTTPException) as error:
            self.close()
            return error
        return answer.status

    def _connect(self) -> HTTPConnection:
        at = self._endpoint
        if at.scheme == "https":
            return HTTPSConnection(at.host, at.port, timeout=SECONDS, context=self._trusted())
        return HTTPConnection(at.host, at.port, timeout=SECONDS)
