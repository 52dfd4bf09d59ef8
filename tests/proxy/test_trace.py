"""W3C Trace Context: what is continued, what is not, and what goes on."""

from __future__ import annotations

import re

import pytest
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from proxy.asgi import look_over
from proxy.trace import Trace, is_parent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01".encode()


@pytest.mark.parametrize(
    "text", [PARENT, PARENT[:-2] + b"00", b"cc" + PARENT[2:], b"cc" + PARENT[2:] + b"-more"]
)
def test_a_well_formed_parent_is_one(text: bytes) -> None:
    """Section 3.2; a later version may go on behind the flags."""
    assert is_parent(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"ff" + PARENT[2:],
        PARENT.upper(),
        PARENT + b"-more",
        PARENT[:-1],
        b" " + PARENT,
        PARENT.replace(SPAN.encode(), b"0" * 16),
        PARENT.replace(TRACE.encode(), b"0" * 32),
        b"cc" + PARENT[2:] + b".more",
        b"cc" + PARENT[2:] + b"-kr_" + b"a" * 8,
    ],
)
def test_whatever_else_is_none(text: bytes) -> None:
    """Zero ids, other cases and lengths, and what might be a token."""
    assert not is_parent(text)


def test_a_parents_trace_goes_on_with_ids_of_our_own() -> None:
    """The same trace, our span below the caller's, the next one's below ours."""
    trace = Trace(PARENT, 5.0)
    assert (trace.trace, trace.parent, trace.sampled, trace.began) == (TRACE, SPAN, True, 5.0)
    assert len({trace.span, trace.upstream, SPAN}) == 3
    assert trace.onward == f"00-{TRACE}-{trace.upstream}-01".encode()


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False)])
def test_the_caller_decides_what_is_sampled_of_its_traces(flags: str, sampled: bool) -> None:
    """Whatever our ratio is; the other flags are not ours to pass on."""
    trace = Trace(PARENT[:-2] + flags.encode(), 0.0, 1.0 - sampled)
    assert trace.sampled is sampled
    assert trace.onward.endswith(b"-01" if sampled else b"-00")


def test_a_trace_without_a_parent_is_new_and_sampled_by_the_ratio() -> None:
    """Ids are random and well-formed."""
    all_of_them = [Trace(b"", 0.0) for _ in range(20)]
    assert all(one.sampled and one.parent == "" and is_parent(one.onward) for one in all_of_them)
    assert len({one.trace for one in all_of_them}) == 20
    assert re.fullmatch("[0-9a-f]{16}", all_of_them[0].span)
    assert not any(Trace(b"", 0.0, 0.0).sampled for _ in range(20))


def test_opentelemetry_reads_what_goes_on() -> None:
    """And we what it writes."""
    context = TraceContextTextMapPropagator()
    ours = Trace(b"", 0.0)
    read = context.extract({"traceparent": ours.onward.decode()})
    span = get_current_span(read).get_span_context()
    assert (f"{span.trace_id:032x}", f"{span.span_id:016x}") == (ours.trace, ours.upstream)
    assert span.trace_flags.sampled
    written: dict[str, str] = {}
    context.inject(written, read)
    theirs = Trace(written["traceparent"].encode(), 0.0)
    assert (theirs.trace, theirs.parent) == (ours.trace, ours.upstream)


# What of it is in a header's hash.

FIELDS = ((b"accept", b"*/*"), (b"x-request-id", b"one"))


def test_a_well_formed_parent_makes_no_other_header() -> None:
    """It is another one in every call, and decides nothing."""
    plain = look_over("GET", b"/proxy", FIELDS)
    traced = look_over("GET", b"/proxy", (FIELDS[0], (b"traceparent", PARENT), FIELDS[1]))
    assert (plain.hash, plain.parent) == (traced.hash, b"")
    assert (traced.fields, traced.parent, traced.id) == (FIELDS, PARENT, "one")


@pytest.mark.parametrize(
    "more",
    [
        ((b"traceparent", b"kr_12345678_" + b"a" * 40),),
        ((b"traceparent", PARENT), (b"traceparent", PARENT)),
        ((b"traceparent", PARENT), (b"connection", b"TraceParent")),
    ],
)
def test_any_other_stays_a_field_and_counts(more: tuple[tuple[bytes, bytes], ...]) -> None:
    """Malformed, twice, or for this connection alone: judged and passed on like every field."""
    without = tuple(field for field in more if field[0] != b"traceparent")
    seen = look_over("GET", b"/proxy", FIELDS + more)
    assert (seen.fields, seen.parent) == (FIELDS + more, b"")
    assert seen.hash != look_over("GET", b"/proxy", FIELDS + without).hash
    once = look_over("GET", b"/proxy", (*FIELDS, *without, more[0]))
    assert len(more) == 1 or more[1][0] == b"connection" or seen.hash != once.hash
