"""A caller's connection that takes requests whose header is familiar past the parser."""

from __future__ import annotations

from typing import Any, cast

from uvicorn._types import HTTPScope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from proxy.cycle import RelayCycle
from proxy.familiar import Familiar, Header, Outline, outlined
from proxy.patience import Waits
from proxy.protocol import RelayProtocol


class ShortcutProtocol(RelayProtocol):
    """One connection of a caller. `familiar` is shared by all of a server.

    Octets go past the parser between two requests only, and as many as the header tells.
    """

    def __init__(self, *args: Any, waits: Waits, familiar: Familiar, **more: Any) -> None:
        super().__init__(*args, waits=waits, **more)
        self._familiar = familiar
        self._owed = 0  # octets of a body that has not come whole

    def data_received(self, data: bytes) -> None:
        """Octets from the caller."""
        if self._owed and not self.is_deaf:
            self._take_body(data, 0)
        elif not self.is_at_rest or (outline := outlined(data)) is None:
            super().data_received(data)
        elif header := self._familiar.find(outline):
            self._take(header, outline, data)
        else:
            self._learn(outline, data)

    def _learn(self, outline: Outline, data: bytes) -> None:
        begun = self.begun
        super().data_received(data)
        if self.begun == begun + 1 and self.is_plain:
            cycle = cast(RelayCycle, self.cycle)
            cycle.seen = self._familiar.keep(data, outline, self.url, dict(self.scope))

    def _take(self, header: Header, outline: Outline, data: bytes) -> None:
        fields = header.fields(outline.digits)
        scope = header.parts | {"server": self.server, "client": self.client, "headers": fields}
        self.scope = cast(HTTPScope, scope)
        self.scope["state"] = self.app_state.copy()
        cycle = self.new_cycle(header.target, keep_alive=True)
        cycle.seen = header.seen._replace(length=outline.length, fields=fields)
        self.begin(cycle)
        self._owed = outline.length
        self._take_body(data, outline.end)

    def _take_body(self, data: bytes, start: int) -> None:
        cycle, part = self.cycle, data[start : start + self._owed]
        self._owed -= len(part)
        if not cycle.response_complete:
            cycle.body += part
            cycle.more_body = bool(self._owed)
            cycle.message_event.set()
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
        if self._owed:
            self.body_goes_on()
        else:
            self.request_is_whole()
            if rest := data[start + len(part) :]:
                self.data_received(rest)
