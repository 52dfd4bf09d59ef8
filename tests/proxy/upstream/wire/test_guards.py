"""What a header on the wire may look like."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import BadRequest, UpstreamError
from proxy.upstream.wire.guards import check_answer, check_beginning, request_header

HOST = (b"host", b"a.test")


def test_a_request_is_written_line_by_line() -> None:
    """Nothing is added, and Expect is left out: we have answered it."""
    fields = (HOST, (b"expect", b"100-continue"), (b"x", b""), (b"y", b"\xe9 z"))
    written = request_header("POST", "/a?b", fields)
    assert written == b"POST /a?b HTTP/1.1\r\nhost: a.test\r\nx: \r\ny: \xe9 z\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "target", "name", "value"),
    [
        ("GET", "/", b"x", b"1\r\nevil: 1"),
        ("GET", "/", b"x", b"1\r\n\r\nGET / HTTP/1.1"),
        ("GET", "/", b"x", b"1\n2"),
        ("GET", "/", b"x", b"1\r2"),
        ("GET", "/", b"x", b"\x00"),
        ("GET", "/", b"x\r\ny", b"1"),
        ("GET", "/", b"x y", b"1"),
        ("GET", "/", b"", b"1"),
        ("GET", "/", b"x:y", b"1\r\nz"),
        ("GET", "/ HTTP/1.1\r\nevil: 1\r\nx: ", b"x", b"1"),
        ("GET", "/a b", b"x", b"1"),
        ("GET", "", b"x", b"1"),
        ("GET /", "/", b"x", b"1"),
        ("", "/", b"x", b"1"),
        ("G\u0404T", "/", b"x", b"1"),
        ("GET", "/\u0404", b"x", b"1"),
    ],
)
def test_what_would_be_read_as_something_else_is_not_sent(
    method: str, target: str, name: bytes, value: bytes
) -> None:
    """Whatever let it come this far."""
    with pytest.raises(BadRequest):
        request_header(method, target, (HOST, (name, value)))


@settings(max_examples=200)
@given(st.binary(max_size=20), st.binary(max_size=20))
def test_a_field_stays_one_line(name: bytes, value: bytes) -> None:
    """What is written has one line for each field, whatever stands in it."""
    try:
        written = request_header("GET", "/", (HOST, (name, value)))
    except BadRequest:
        return
    lines = [line for line in re.split(rb"[\r\n]+", written) if line]
    assert len(lines) == (2 if name == b"expect" else 3)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"H",
        b"HTTP/1.",
        b"HTTP/1.1 200 OK\r",
        b"HTTP/1.1 200 OK\r\nA: b\r\n",
        b"HTTP/1.1 2\r\n\r",
    ],
)
def test_a_beginning_may_become_a_header(octets: bytes) -> None:
    """A CR at its end may have its LF behind it."""
    check_beginning(octets)


@pytest.mark.parametrize(
    "octets",
    [
        b"h",
        b"SSH",
        b"HTTP/2",
        b"\r\n",
        b"HTTP/1.1 200\n",
        b"HTTP/1.1 200 OK\r\nA: b\rC",
        b"HTTP/1.1 \rx",
    ],
)
def test_a_beginning_that_can_become_none_is_refused_at_once(octets: bytes) -> None:
    """Nobody waits for the deadline."""
    with pytest.raises(UpstreamError):
        check_beginning(octets)


def test_headers_are_bounded() -> None:
    """64 KiB and 200 fields, whole or not."""
    start = b"HTTP/1.1 200 OK\r\n"
    check_answer(start + b"a: b\r\n" * 200 + b"\r\n")
    for header in (start + b"a: b\r\n" * 201, start + b"a: " + b"b" * 66_000 + b"\r\n"):
        with pytest.raises(UpstreamError):
            check_answer(header + b"\r\n")
    with pytest.raises(UpstreamError):
        check_beginning(start + b"a" * 66_000)
