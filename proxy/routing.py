"""Call to Route: what the caller asks and where to, once the caller is known."""

from __future__ import annotations

from proxy.call import Call
from proxy.destinations import parse_destination
from proxy.errors import LoopDetected, MethodNotAllowed, RelayError, WebSocketUnsupported
from proxy.fields import via_count
from proxy.grant import Route
from proxy.messages import values

MAX_ROUNDS = 3
_NEVER_FORWARDED = frozenset({"CONNECT", "TRACE"})


class Router:
    """Raises what the target line, the method or the fields of a call make impossible.

    `pseudonym`: this install's name in Via (RFC 9110 section 7.6.3).
    """

    def __init__(self, pseudonym: bytes) -> None:
        self._pseudonym = pseudonym

    def route(self, call: Call) -> Route:
        """The route; raises MethodNotAllowed, WebSocketUnsupported, LoopDetected, BadCall."""
        if call.method in _NEVER_FORWARDED:
            raise MethodNotAllowed(f"{call.method} is never forwarded; use another method.")
        if _asks_for_websocket(call):
            raise WebSocketUnsupported("keyrelay forwards HTTP; call the provider's HTTP API.")
        if via_count(call.fields, self._pseudonym) >= MAX_ROUNDS:
            raise LoopDetected("The call came through this keyrelay three times; check `server`.")
        if isinstance(call.directions, RelayError):
            raise call.directions
        return Route(call.directions, parse_destination(call.directions.url))


def _asks_for_websocket(call: Call) -> bool:
    return any(b"websocket" in value.lower() for value in values(call.fields, b"upgrade"))
