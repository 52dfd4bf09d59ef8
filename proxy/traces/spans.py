"""A finished call as spans: one of the server, and within it look-up, queue and upstream.

Names and attributes are those of OpenTelemetry's conventions for HTTP where there are some. No
path, query, header value or body is in any.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from proxy.record import CallRecord
from proxy.trace import Trace

Attributes = dict[str, str | int | float | bool]

METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
_FLAGS: Final = TraceFlags(TraceFlags.SAMPLED)
_FAILED: Final = Status(StatusCode.ERROR)
_WELL: Final = Status(StatusCode.UNSET)


class Part(NamedTuple):
    """A span of a call; moments of the monotonic clock. `id`: empty where nobody knows it yet."""

    name: str
    begin: float
    end: float
    attributes: Attributes
    id: str = ""
    kind: SpanKind = SpanKind.INTERNAL
    failed: bool = False


class Encoder:
    """Makes the bodies that a collector takes. `version`: of this program."""

    def __init__(self, version: str) -> None:
        self._resource = Resource({"service.name": "keyrelay", "service.version": version})
        self._scope = InstrumentationScope("keyrelay", version)

    def __call__(self, records: Iterable[CallRecord]) -> bytes:
        """An ExportTraceServiceRequest with the spans of the calls."""
        spans = [span for record in records for span in self.spans(record)]
        octets: bytes = encode_spans(spans).SerializeToString()
        return octets

    def spans(self, record: CallRecord) -> Iterator[ReadableSpan]:
        """Those of one call, its own first."""
        trace = record.trace
        if trace is None:
            return
        until = trace.began + record.seconds
        whole = Part(
            " ".join(filter(None, (_method(record.method, "HTTP"), record.service))),
            trace.began,
            until,
            _attributes(record),
            trace.span,
            SpanKind.SERVER,
            record.status >= 500 or record.cut,
        )
        yield self._span(record, trace, whole)
        for part in _parts(record, trace, until):
            yield self._span(record, trace, part)

    def _span(self, record: CallRecord, trace: Trace, part: Part) -> ReadableSpan:
        own = part.id == trace.span
        number = int(trace.trace, 16)
        above = trace.parent if own else trace.span
        parent = SpanContext(number, int(above, 16), own, _FLAGS) if above else None
        begin = record.began + (part.begin - trace.began)
        return ReadableSpan(
            part.name,
            SpanContext(number, int(part.id or secrets.token_hex(8), 16), False, _FLAGS),
            parent,
            self._resource,
            part.attributes,
            kind=part.kind,
            status=_FAILED if part.failed else _WELL,
            start_time=round(begin * 1e9),
            end_time=round((begin + max(part.end - part.begin, 0.0)) * 1e9),
            instrumentation_scope=self._scope,
        )


def _method(method: str, other: str) -> str:
    return method if method in METHODS else other


def _attributes(record: CallRecord) -> Attributes:
    """What is empty is left out."""
    failed = record.code or (str(record.status) if record.status >= 500 else "")
    given: Attributes = {
        "http.request.method": _method(record.method, "_OTHER"),
        "http.route": "/proxy",
        "url.path": "/proxy",
        "url.scheme": "http",
        "http.response.status_code": record.status,
        "http.request.body.size": record.received,
        "http.response.body.size": record.sent,
        "error.type": failed or ("cut" if record.cut else ""),
        "keyrelay.request_id": record.id,
        "keyrelay.tenant": record.tenant,
        "keyrelay.token": record.token,
        "keyrelay.service": record.service,
        "keyrelay.host": record.host,
        "keyrelay.cache": record.verdict,
        "keyrelay.cut": record.cut,
    }
    return {name: value for name, value in given.items() if value != "" and value is not False}


def _parts(record: CallRecord, trace: Trace, until: float) -> Iterator[Part]:
    """Look-up, queue and upstream, as far as the call came; what has not ended ends with it."""
    if trace.asked is not None:
        ends = (trace.queued, trace.sent, trace.found)
        end = next((moment for moment in ends if moment is not None), until)
        told: Attributes = {"keyrelay.cache": record.verdict} if record.verdict else {}
        yield Part("cache look-up", trace.asked, end, told)
    if trace.queued is not None:
        left = until if trace.admitted is None else trace.admitted
        yield Part("queue wait", trace.queued, left, {}, failed=trace.admitted is None)
    if trace.sent is not None:
        yield _upstream(record, trace, trace.sent, until)


def _upstream(record: CallRecord, trace: Trace, sent: float, until: float) -> Part:
    told: Attributes = {
        "http.request.method": _method(record.method, "_OTHER"),
        "server.address": record.host,
    }
    if trace.status:
        told["http.response.status_code"] = trace.status
    if trace.answered is not None:
        told["keyrelay.header_seconds"] = trace.answered - sent
    failed = trace.answered is None or trace.status >= 400
    if failed:
        told["error.type"] = str(trace.status) if trace.status else record.code or "cut"
    end = until if trace.ended is None else trace.ended
    name = _method(record.method, "HTTP")
    return Part(name, sent, end, told, trace.upstream, SpanKind.CLIENT, failed)
