"""A caller's connection that takes turns with those of other addresses."""

from __future__ import annotations

from functools import partial
from typing import Any

from proxy.cycle import RelayCycle
from proxy.shortcut import ShortcutProtocol


class OrderlyProtocol(ShortcutProtocol):
    """One connection of a caller.

    Where as many calls begin as may, what a caller sends is not even read before its turn: of a
    crowd that takes long too. Only whoever speaks for others is read to learn for whom it calls.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._turns = self._door.turns
        self._put_off = b""
        self._placed = False

    def data_received(self, data: bytes) -> None:
        """Octets from the caller."""
        if not self._turns.crowded:
            super().data_received(data)
        elif self._put_off:  # what fits into one read is enough to wait with
            self._put_off += data
            self.flow.pause_reading()
        elif self.is_at_rest and not self._speaks_for_others:
            self._put_off = data
            self._turns.wait(self._whose, self, self._come)
        else:
            super().data_received(data)

    def _come(self) -> None:
        """It is our turn; the place is given back by the call that is read, or where there is none
        yet."""
        self._placed = True
        self._read_now()
        if self._placed:
            self._placed = False
            self._turns.ran()

    def _read_now(self) -> None:
        octets, self._put_off = self._put_off, b""
        if not self.transport.is_closing():
            if self.flow.read_paused:
                self.flow.resume_reading()
            super().data_received(octets)

    def _start_asgi_task(self, cycle: RelayCycle, app: Any) -> None:  # type: ignore[override]
        turns = self._turns
        if self._placed or turns.take():
            self._placed = False
            cycle.start(app, self.tasks, turns.ran)
        else:
            cycle.on_gone(partial(turns.forget, cycle.whose, cycle))
            turns.wait(cycle.whose, cycle, partial(cycle.start, app, self.tasks, turns.ran))

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone, and waits no more."""
        self._leave_queue()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """What has come by now is still answered."""
        if self._put_off:
            self._leave_queue()
            self._read_now()
        super().shutdown()

    def _leave_queue(self) -> None:
        if self._put_off:
            self._turns.forget(self._whose, self)
