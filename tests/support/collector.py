"""A collector of traces on a real socket: takes OTLP over HTTP and tells the spans that came."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.canaries import LEDGER
from tests.support.origin import Exchange, Origin

SERVER, CLIENT, INTERNAL = 2, 3, 1
"""Kinds of spans, as OTLP numbers them."""


@dataclass(frozen=True)
class Span:
    """One span as it came; times in nanoseconds."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    begin: int
    end: int
    failed: bool
    attributes: dict[str, Any]


def spans_of(body: bytes) -> list[Span]:
    """All spans of one request."""
    request = ExportTraceServiceRequest.FromString(body)
    return [
        Span(
            one.name,
            one.kind,
            one.trace_id.hex(),
            one.span_id.hex(),
            one.parent_span_id.hex(),
            one.start_time_unix_nano,
            one.end_time_unix_nano,
            one.status.code == 2,
            {item.key: _value(item.value) for item in one.attributes},
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for one in scope.spans
    ]


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


class TraceCollector(Origin):
    """Answers with `status`; `spans` are those of the requests that it took, `bodies` all."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(self._take)
        self.status = status
        self.spans: list[Span] = []
        self.came = asyncio.Event()

    @property
    def may_not_come(self) -> Collection[str]:
        """Nor a key."""
        return LEDGER.secrets

    async def _take(self, exchange: Exchange) -> None:
        body = await exchange.read_body()
        if self.status == 200:
            self.spans += spans_of(body)
        await exchange.reply(self.status, [("Content-Type", "application/x-protobuf")])
        self.came.set()

    async def until_asked(self) -> None:
        """Until a request has been answered since the last time."""
        await asyncio.wait_for(self.came.wait(), 20)
        self.came.clear()

    async def calls(self, number: int) -> list[list[Span]]:
        """The spans of so many calls, each call's own first; waits for them."""
        while len(self._whole()) < number:
            await self.until_asked()
        whole = self._whole()
        return [[one, *(s for s in self.spans if s.parent == one.id)] for one in whole]

    def _whole(self) -> list[Span]:
        return [one for one in self.spans if one.kind == SERVER]
