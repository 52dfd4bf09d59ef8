"""A finished call as spans: one of the server, and within it look-up, queue and upstream.

Names and attributes are those of OpenTelemetry's conventions for HTTP where there are some. No
path, query, header value or body is in any.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status

from proxy.record import CallRecord
from proxy.trace import Trace

Attributes = dict[str, str | int | float | bool]

METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
_SAMPLED: Final = 1
_LOCAL: Final = _SAMPLED | SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE: Final = _LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class Part(NamedTuple):
    """A span of a call; moments of the monotonic clock. `id`: empty where nobody knows it yet."""

    name: str
    begin: float
    end: float
    attributes: Attributes
    id: str = ""
    kind: Span.SpanKind.ValueType = Span.SPAN_KIND_INTERNAL
    failed: bool = False


class Encoder:
    """Makes the bodies that a collector takes. `version`: of this program."""

    def __init__(self, version: str) -> None:
        self._version = version

    def __call__(self, records: Iterable[CallRecord]) -> bytes:
        """An ExportTraceServiceRequest with the spans of the calls."""
        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        whose: Attributes = {"service.name": "keyrelay", "service.version": self._version}
        _describe(resource.resource.attributes, whose)
        scope = resource.scope_spans.add()
        scope.scope.name, scope.scope.version = "keyrelay", self._version
        for record in records:
            if record.trace is not None:
                for part in _spans(record, record.trace):
                    _write(scope.spans.add(), record, record.trace, part)
        octets: bytes = request.SerializeToString()
        return octets


def _write(span: Span, record: CallRecord, trace: Trace, part: Part) -> None:
    own = part.id == trace.span
    above = trace.parent if own else trace.span
    zero = record.began - trace.began
    span.trace_id = bytes.fromhex(trace.trace)
    span.span_id = bytes.fromhex(part.id or secrets.token_hex(8))
    span.parent_span_id = bytes.fromhex(above)
    span.flags = _REMOTE if own and above else _LOCAL
    span.name = part.name
    span.kind = part.kind
    span.start_time_unix_nano = round((zero + part.begin) * 1e9)
    span.end_time_unix_nano = round((zero + max(part.begin, part.end)) * 1e9)
    if part.failed:
        span.status.code = Status.STATUS_CODE_ERROR
    _describe(span.attributes, part.attributes)


def _describe(place: Any, attributes: Attributes) -> None:
    for name, value in attributes.items():
        said = place.add()
        said.key = name
        if isinstance(value, str):
            said.value.string_value = value
        elif isinstance(value, bool):
            said.value.bool_value = value
        elif isinstance(value, int):
            said.value.int_value = value
        else:
            said.value.double_value = value


def _spans(record: CallRecord, trace: Trace) -> Iterator[Part]:
    """Those of one call, its own first."""
    until = trace.began + record.seconds
    name = " ".join(filter(None, (_method(record.method, "HTTP"), record.service)))
    failed = record.status >= 500 or record.cut
    told = _attributes(record)
    yield Part(name, trace.began, until, told, trace.span, Span.SPAN_KIND_SERVER, failed)
    yield from _parts(record, trace, until)


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
    return Part(name, sent, end, told, trace.upstream, Span.SPAN_KIND_CLIENT, failed)
