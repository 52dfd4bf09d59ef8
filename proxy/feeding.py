"""The parser of a connection, fed so that it's known where each request line is, and fed on behind
an upgrade."""

from __future__ import annotations

from typing import Any, NoReturn

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from proxy.errors import BadRequest, RelayError
from proxy.framing import Portions, framing_alone, has_framing
from proxy.messages import Fields, values


class FedProtocol(HttpToolsProtocol):
    """One connection's parser. `refusal`: why nothing more of it is read, where we know."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.refusal: RelayError | None = None
        self._portions = Portions()
        self._in_header = self._resuming = False

    def _feed(self, data: bytes) -> None:
        """Raises ValueError, or what the parser raises."""
        at = 0
        while at < len(data):
            portion = self._portions.take(data, at)
            at += len(portion)
            try:
                self.parser.feed_data(portion)
            except httptools.HttpParserUpgrade as upgrade:
                at += upgrade.args[0] - len(portion)
                if self._body_comes_after_upgrade():
                    self._resume_at_body()
                elif self.scope["method"] == "CONNECT" or b"websocket" in self._upgrade():
                    return  # what follows is not HTTP, and the call is refused
            if self._in_header and self._portions.in_line:
                self._judge(portion)

    def _judge(self, portion: bytes) -> None:
        try:
            self._portions.judge(portion)
        except BadRequest as error:
            self._refuse(error)

    def _refuse(self, error: RelayError) -> NoReturn:
        self.refusal = error
        raise ValueError(error.code)

    @property
    def _fields(self) -> Fields:
        return tuple(self.headers)

    # Upgrades are never made (RFC 9110 section 7.8 lets a server ignore them), but the parser ends
    # its work at one: without what follows here a body would be read as the next request.

    def _upgrade(self) -> bytes:
        return b",".join(values(self._fields, b"upgrade")).lower()

    def _body_comes_after_upgrade(self) -> bool:
        if not self.parser.should_upgrade() or self.scope["method"] == "CONNECT":
            return False
        return has_framing(self._fields)

    def _resume_at_body(self) -> None:
        """A new parser that has just read a header with the same framing."""
        self.parser = httptools.HttpRequestParser(self)
        self._resuming = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing_alone(self._fields) + b"\r\n")
        self._resuming = False
