"""What two readers could read differently never becomes a call: 400, and the connection ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import pytest

from proxy.errors import BadRequest
from proxy.familiar import Familiar
from proxy.framing import MAX_FIELDS, MAX_HEADER, MAX_TARGET, check_framing
from tests.proxy.test_protocol import Socket
from tests.proxy.test_shortcut import Call, Echo, connection, heard

GET = b"GET /proxy HTTP/1.1\r\n"
POST = b"POST /proxy HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GOOD = GET + b"Host: a\r\n\r\n"

HOSTS = {
    "missing": GET + b"\r\n",
    "double": GET + b"Host: a\r\nHost: b\r\n\r\n",
    "the same twice": GET + b"Host: a\r\nhost: a\r\n\r\n",
    "a list": GET + b"Host: a, b\r\n\r\n",
    "a list without a space": GET + b"Host: a,b\r\n\r\n",
    "empty": GET + b"Host:\r\n\r\n",
    "with a space": GET + b"Host: a b\r\n\r\n",
    "with a path": GET + b"Host: a/b\r\n\r\n",
    "with userinfo": GET + b"Host: u@a\r\n\r\n",
    "with a word for a port": GET + b"Host: a:b\r\n\r\n",
    "with two ports": GET + b"Host: a:1:2\r\n\r\n",
    "not ASCII": GET + b"Host: \xc3\xa4\r\n\r\n",
    "malformed in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a/b\r\n\r\n",
    "another than the target's": b"GET http://b/proxy HTTP/1.1\r\nHost: a\r\n\r\n",
    "another than the target's port": b"GET http://a:1/proxy HTTP/1.1\r\nHost: a\r\n\r\n",
    "space before the colon": GET + b"Host : a\r\n\r\n",
}
VERSIONS = {
    "HTTP/0.9": b"GET /proxy\r\n\r\n",
    "HTTP/0.9 without another word": b"GET /proxy\r\n",
    "HTTP/0.9 ended by LF": b"GET /proxy\n",
    "HTTP/0.9 by name without another word": b"GET /proxy HTTP/0.9\r\n",
    "HTTP/0.9 of a target like a version": b"GET /proxy/HTTP/1.1\r\n",
    "HTTP/0.9 by name": b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method of RTSP": b"DESCRIBE /proxy RTSP/1.0\r\nHost: a\r\n\r\n",
    "RTSP": b"OPTIONS /proxy RTSP/1.0\r\nHost: a\r\n\r\n",
    "RTSP/1.1": b"GET /proxy RTSP/1.1\r\nHost: a\r\n\r\n",
    "ICE": b"SOURCE /proxy ICE/1.0\r\nHost: a\r\n\r\n",
    "a name in lower case": b"GET / http/1.1\r\nHost: a\r\n\r\n",
    "two spaces before the target": b"GET  /proxy HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces behind the target": b"GET /proxy  HTTP/1.1\r\nHost: a\r\n\r\n",
    "no method": b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": bytes.fromhex("1603010200010001fc0303") + bytes(64),
}
CODINGS = {
    text.decode("latin-1"): POST + b"Transfer-Encoding: " + text + b"\r\n\r\n0\r\n\r\n"
    for text in (
        *(b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"chunked\r\n"),
        *(b"identity", b"", b"chunked;a=b", b",chunked", b"chunked,", b"xchunked", b"\x0bchunked"),
        *(b'"chunked"', b"chunked\r\nTransfer-Encoding: chunked", b"chunked\r\n chunked"),
        b"chunked\r\nTransfer-Encoding: identity",
    )
    if text != b"chunked\r\n"
}
CODINGS["in HTTP/1.0"] = CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n"
LENGTHS = {
    text.decode("latin-1"): POST + b"Content-Length: " + text + b"\r\n\r\nabc"
    for text in (
        *(b"3\r\nContent-Length: 3", b"3\r\nContent-Length: 4", b"3, 3", b"+3", b"-3", b"0x3"),
        *(b"3 3", b"", b"3\x0b", b"3_0", b"3.0", b"9" * 30, b"3\r\nTransfer-Encoding: chunked"),
        *(b"0\r\nTransfer-Encoding: chunked", b"3\r\nTransfer-Encoding: identity"),
    )
}
LENGTHS["behind chunked"] = CHUNKED[:-2] + b"Content-Length: 3\r\n\r\n0\r\n\r\n"
LENGTHS["space before the colon"] = POST + b"Content-Length : 3\r\n\r\nabc"
LINES = {
    "folded": GET + b"Host: a\r\nX: b\r\n c\r\n\r\n",
    "folded by a tab": GET + b"Host: a\r\nX: b\r\n\tc\r\n\r\n",
    "folded at the start": GET + b" X: a\r\nHost: a\r\n\r\n",
    "folded into nothing": GET + b"Host: a\r\nX:\r\n c\r\n\r\n",
    "ended by LF": GET + b"Host: a\nX: b\r\n\r\n",
    "all ended by LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "the header ended by LF": GET + b"Host: a\r\n\n",
    "the last ended by LF": GET + b"Host: a\n\r\n",
    "the first ended by LF": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    "ended by CR": GET + b"Host: a\rX: b\r\n\r\n",
    "without a colon": GET + b"Host: a\r\nX\r\n\r\n",
    "without a name": GET + b"Host: a\r\n: b\r\n\r\n",
    "a tab for the space": b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space in front": b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space behind": b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "a name that is not ASCII": GET + b"Host: a\r\nX\xe9: b\r\n\r\n",
}
CHUNKS = {
    text.decode("latin-1"): CHUNKED + text
    for text in (
        *(b"1\na\r\n0\r\n\r\n", b"1\r\na\n0\r\n\r\n", b"1\r\na\r\n0\n\r\n", b"1\r\na\r\n0\r\n\n"),
        *(b"+1\r\na\r\n0\r\n\r\n", b"0x1\r\na\r\n0\r\n\r\n", b"-1\r\na\r\n0\r\n\r\n"),
        *(b"1 \r\na\r\n0\r\n\r\n", b" 1\r\na\r\n0\r\n\r\n", b"\r\na\r\n0\r\n\r\n"),
        *(b"10000000000000000\r\na", b"1;a\nb\r\na\r\n0\r\n\r\n", b"1;a=\x01\r\na\r\n0\r\n\r\n"),
        *(b"1\r\nab\r\n0\r\n\r\n", b"0\r\nX: \x01\r\n\r\n", b"0\r\nX: a\n\r\n"),
        *(b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    )
}
CONTROLS = [*range(9), *range(10, 32), 127]
PLACES = {
    "in a value": GET + b"Host: a\r\nX: b*c\r\n\r\n",
    "before a value": GET + b"Host: a\r\nX: *b\r\n\r\n",
    "behind a value": GET + b"Host: a\r\nX: b*\r\n\r\n",
    "in a name": GET + b"Host: a\r\nX*Y: b\r\n\r\n",
    "in the target": b"GET /a*b HTTP/1.1\r\nHost: a\r\n\r\n",
    "in the method": b"GE*T / HTTP/1.1\r\nHost: a\r\n\r\n",
}
WRONG = {
    f"{kind}, {name}": raw
    for kind, cases in (
        *(("Host", HOSTS), ("version", VERSIONS), ("coding", CODINGS), ("length", LENGTHS)),
        *(("line", LINES), ("chunk", CHUNKS)),
    )
    for name, raw in cases.items()
}


BODY = b"a\r\n\r\nGET /x HTTP/0.9\r\n\r\nOPTIONS /x RTSP/1.0\r\n\r\n\r\nA"
OLD = b"\r\nPOST /yes HTTP/1.0\r\nContent-Length: 2\r\n\r\nok"
H2C = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNK = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
FIRST = {
    "nothing": b"",
    "empty lines": b"\r\n\r\n",
    "without a body": GOOD,
    "behind empty lines": b"\r\n\r\n" + GOOD + b"\r\n",
    "with a length": POST + LENGTH,
    "of no length": POST + b"Content-Length: 0\r\n\r\n",
    "in chunks": POST + CHUNK + b"\r\n",
    "in chunks with trailers": POST + CHUNK + b"X: y\r\nA: b\r\n\r\n",
    "in chunks before empty lines": POST + CHUNK + b"\r\n\r\n\r\n",
    "an upgrade": GET + b"Host: a\r\n" + H2C + b"\r\n",
    "an upgrade with a length": POST + H2C + LENGTH,
    "an upgrade in chunks": POST + H2C + CHUNK + b"\r\n",
}
"""What may stand before another request; each body looks like requests."""


def cuts(raw: bytes) -> Iterator[list[bytes]]:
    """Whole, cut at every octet, and octet by octet."""
    yield [raw]
    yield from ([raw[:cut], raw[cut:]] for cut in range(1, len(raw)))
    yield [bytes([octet]) for octet in raw]


async def refused(pieces: Sequence[bytes], familiar: Familiar) -> tuple[list[Call], list[bytes]]:
    """Which calls were made of it whole, and the answers; the connection is closed by us."""
    app = Echo()
    one = connection(app, familiar)
    wire = cast(Socket, one.transport)
    for piece in pieces:
        if not wire.is_closing():
            one.data_received(piece)
    assert wire.is_closing()
    return await heard(app, one, [])


def statuses(lines: list[bytes]) -> list[bytes]:
    return [line[9:12] for line in lines]


@pytest.mark.parametrize("raw", WRONG.values(), ids=WRONG.keys())
async def test_what_two_readers_could_read_differently_is_400(raw: bytes) -> None:
    """Whole, octet by octet, and behind a request that is in order and known."""
    familiar = Familiar()
    await heard(Echo(), connection(Echo(), familiar), [GOOD])
    for pieces in ([raw], [bytes([octet]) for octet in raw]):
        calls, lines = await refused(pieces, familiar)
        assert (calls, statuses(lines)) == ([], [b"400"])
    app = Echo()
    one = connection(app, familiar)
    calls, lines = await heard(app, one, [GOOD, raw])
    assert ([call[0] for call in calls], statuses(lines)) == (["GET"], [b"200", b"400"])


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
async def test_control_characters_are_400(place: bytes) -> None:
    """Each, but for the tab, wherever it stands (RFC 9110 section 5.5)."""
    for number in CONTROLS:
        calls, lines = await refused([place.replace(b"*", bytes([number]))], Familiar())
        assert (number, calls, statuses(lines)) == (number, [], [b"400"])


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST.keys())
async def test_what_is_no_http_is_no_call_behind_another_request(first: bytes) -> None:
    """In one read, or in two: whatever the first request is like, and wherever it is cut."""
    for raw in (
        b"OPTIONS /no RTSP/1.0\r\nHost: a\r\n\r\n",
        b"GET /no\r\n",
        b"\r\nGET /no\n",
        b"GET  /no HTTP/1.1\r\nHost: a\r\n\r\n",
    ):
        for pieces in cuts(first + raw):
            app = Echo()
            one = connection(app, Familiar())
            calls, lines = await heard(app, one, pieces)
            assert [call[1] for call in calls if call[1] != "/proxy"] == []
            assert (pieces, statuses(lines)[-1]) == (pieces, b"400")
            assert one.transport.is_closing()


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST.keys())
async def test_requests_in_order_are_read_however_they_are_cut(first: bytes) -> None:
    """The second is a call with its own body, and the first has all of its own, whatever is in it;
    HTTP/1.0 and empty lines in front are in order too."""
    for second in (b"POST /yes HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok", OLD):
        for pieces in cuts(first + second):
            app = Echo()
            calls, lines = await heard(app, connection(app, Familiar()), pieces)
            found = [(call[1], call[3]) for call in calls]
            assert (pieces, found[-1:]) == (pieces, [("/yes", b"ok")])
            own = [("/proxy", BODY if BODY in first else b"")] if b"/proxy" in first else []
            assert found[:-1] == own
            assert set(statuses(lines)) == {b"200"}


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        (CHUNKED, b"1\r\nab\r\n"),
        (CHUNKED, b"0\r\n" + b"X: %b\r\n" % (b"y" * 30_000) * 3 + b"\r\n"),
        (POST + b"Content-Length: 1\r\n\r\n", b"aJUNK"),
    ],
)
async def test_what_has_been_answered_is_not_refused_as_well(start: bytes, rest: bytes) -> None:
    """One request, one answer: a second one would be taken for that of the next. What is wrong
    behind its body is a request of its own."""
    app = Echo(early=True)
    one = connection(app, Familiar())
    wire = cast(Socket, one.transport)
    calls, lines = await heard(app, one, [start, rest])
    assert wire.is_closing()
    expected = [b"200", b"400"] if rest.endswith(b"JUNK") else [b"200"]
    assert (len(calls), statuses(lines)) == (1, expected)


@pytest.mark.parametrize(
    "host",
    [b"a", b"A.b-c_d~e", b"a:", b"a:80", b"127.0.0.1:8000", b"[::1]", b"[fe80::1%25eth0]:8000"],
)
def test_names_and_addresses_are_hosts(host: bytes) -> None:
    """RFC 3986 section 3.2.2; an absolute target has the same in it (RFC 9112 section 3.2.2)."""
    fields = ((b"host", host),)
    check_framing("1.1", b"/proxy?server=http://other/", fields)
    check_framing("1.1", b"http://" + host.upper() + b"/proxy", fields)
    check_framing("1.1", b"http://" + host + b"?a", fields)
    check_framing("1.1", b"*", fields)
    check_framing("1.1", b"b:443", fields)
    with pytest.raises(BadRequest):
        check_framing("1.1", b"http://other/" + host, fields)


def test_http_1_0_may_go_without_host() -> None:
    """RFC 9112 section 3.2: it is due from HTTP/1.1 on."""
    check_framing("1.0", b"/", ())


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0"])
def test_other_versions_are_refused_whoever_read_the_line(version: str) -> None:
    """Of what the parser says, too."""
    with pytest.raises(BadRequest):
        check_framing(version, b"/", ((b"host", b"a"),))


BOUNDS = {
    "target": (
        b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * (MAX_TARGET - 1)),
        b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * MAX_TARGET),
    ),
    "fields": (
        GET + b"Host: a\r\n" + b"X: y\r\n" * (MAX_FIELDS - 1) + b"\r\n",
        GET + b"Host: a\r\n" + b"X: y\r\n" * MAX_FIELDS + b"\r\n",
    ),
    "header": (
        GET + b"Host: a\r\nX: %b\r\n\r\n" % (b"y" * (MAX_HEADER - 14)),
        GET + b"Host: a\r\nX: %b\r\n\r\n" % (b"y" * (MAX_HEADER - 13)),
    ),
    "trailers": (
        CHUNKED + b"0\r\nX: %b\r\n\r\n" % (b"y" * 30_000),
        CHUNKED + b"0\r\n" + b"X: %b\r\n" % (b"y" * 30_000) * 3 + b"\r\n",
    ),
}
"""What just passes, and what is just too much."""


@pytest.mark.parametrize(("enough", "above"), BOUNDS.values(), ids=BOUNDS.keys())
async def test_the_bounds_are_exact(enough: bytes, above: bytes) -> None:
    """16 kB of target, 100 fields, 64 kB of header and of what is behind a body in all."""
    app = Echo()
    calls, lines = await heard(app, connection(app, Familiar()), [enough])
    assert (len(calls), statuses(lines)) == (1, [b"200"])
    calls, lines = await refused([above], Familiar())
    assert (calls, statuses(lines)) == ([], [b"431"])
