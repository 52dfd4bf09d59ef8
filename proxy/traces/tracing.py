"""Gives calls their place in a trace, and the sampled ones to the thread that sends them."""

from __future__ import annotations

import asyncio
import importlib.metadata
import ssl
from collections.abc import Callable

from proxy.destinations import Target
from proxy.record import CallRecord
from proxy.trace import Trace
from proxy.traces.collector import OtlpCollector
from proxy.traces.sending import Encode, Sender


class Tracing:
    """`ratio`: how many of the traces that begin here are sampled; those that a caller began are
    as it says."""

    def __init__(self, sender: Sender, ratio: float = 1.0) -> None:
        self._sender = sender
        self._ratio = ratio

    @classmethod
    def to(
        cls, endpoint: Target, trusted: Callable[[], ssl.SSLContext], ratio: float = 1.0
    ) -> Tracing:
        """Sends to this place; `trusted`: judges its certificate, if it has one."""
        return cls(Sender(OtlpCollector(endpoint, trusted), _encoder), ratio)

    def begin(self, parent: bytes, began: float) -> Trace:
        """Where a call stands; `parent`: its caller's traceparent, empty for none."""
        return Trace(parent, began, self._ratio)

    def observe(self, record: CallRecord) -> None:
        """An Observer of calls."""
        if record.trace is not None and record.trace.sampled:
            self._sender.add(record._replace(meter=None))

    async def start(self) -> None:
        """From now on calls are sent."""
        self._sender.start()

    async def stop(self) -> None:
        """Sends the last ones, if they are taken within two seconds."""
        await asyncio.to_thread(self._sender.close)


def _encoder() -> Encode:
    from proxy.traces.spans import Encoder  # noqa: PLC0415 - loads OpenTelemetry, in the thread

    return Encoder(importlib.metadata.version("keyrelay"))
