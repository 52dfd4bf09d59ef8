"""How upstreams behave, well and badly: raw octets, and what the client does then."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.origin import LAST_CHUNK, chunk, chunked, head, reply

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = head(200, [("Transfer-Encoding", "chunked")])
SECOND = reply(200, (), b"SECOND")


@dataclass(frozen=True)
class Behaviour:
    """One answer as the origin sends it; `closes`: it hangs up behind it."""

    raw: bytes
    closes: bool = False
    method: str = "GET"


CORPUS = {
    # Whole answers.
    "plain": Behaviour(reply(200, (), b"ok")),
    "empty": Behaviour(reply(200)),
    "no reason phrase": Behaviour(b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok"),
    "no space behind the status": Behaviour(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"),
    "reason with obs-text": Behaviour(b"HTTP/1.1 200 \xe9\r\nContent-Length: 2\r\n\r\nok"),
    "HTTP/1.0 with a length": Behaviour(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    "HTTP/1.0 kept alive": Behaviour(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"
    ),
    "HTTP/1.0 until the end": Behaviour(b"HTTP/1.0 200 OK\r\n\r\nall", closes=True),
    "close-delimited": Behaviour(OK + b"\r\nall of it", closes=True),
    "close-delimited and empty": Behaviour(OK + b"\r\n", closes=True),
    "connection: close": Behaviour(reply(200, [("Connection", "close")], b"ok")),
    "connection: Close, te": Behaviour(reply(200, [("Connection", "te, Close")], b"ok")),
    "keep-alive for 0 seconds": Behaviour(reply(200, [("Keep-Alive", "timeout=0")], b"ok")),
    "keep-alive for a minute": Behaviour(reply(200, [("Keep-Alive", "timeout=60")], b"ok")),
    "chunked": Behaviour(chunked([b"o", b"k"])),
    "chunked and empty": Behaviour(chunked([])),
    "chunked with extensions": Behaviour(CHUNKED + b"2;a=b;c\r\nok\r\n" + LAST_CHUNK),
    "chunked with a quoted extension": Behaviour(CHUNKED + b'2;a="b;"\r\nok\r\n' + LAST_CHUNK),
    "chunked in capitals": Behaviour(
        head(200, [("Transfer-Encoding", "Chunked")]) + chunk(b"ok") + LAST_CHUNK
    ),
    "chunk size with zeros": Behaviour(CHUNKED + b"0002\r\nok\r\n" + LAST_CHUNK),
    "chunk size in capitals": Behaviour(CHUNKED + b"A\r\n0123456789\r\n" + LAST_CHUNK),
    "trailers": Behaviour(CHUNKED + chunk(b"ok") + b"0\r\nX-T: 1\r\n\r\n"),
    "a trailer that is framing": Behaviour(
        CHUNKED + chunk(b"ok") + b"0\r\nContent-Length: 9\r\n\r\n"
    ),
    "204": Behaviour(head(204)),
    "204 with a length": Behaviour(head(204, [("Content-Length", "5")])),
    "304 with a length": Behaviour(head(304, [("Content-Length", "5")])),
    "304 with a coding": Behaviour(head(304, [("Transfer-Encoding", "chunked")])),
    "HEAD with a length": Behaviour(head(200, [("Content-Length", "5")]), method="HEAD"),
    "HEAD with a coding": Behaviour(CHUNKED, method="HEAD"),
    "HEAD without framing": Behaviour(head(200), method="HEAD"),
    "599": Behaviour(reply(599, (), b"ok")),
    "early hints": Behaviour(head(103, [("Link", "</x>")]) + reply(200, (), b"ok")),
    "ten interim answers": Behaviour(head(102) * 10 + reply(200, (), b"ok")),
    "equal lengths": Behaviour(
        head(200, [("Content-Length", "2"), ("Content-Length", "2")]) + b"ok"
    ),
    "200 fields": Behaviour(reply(200, [(f"X-{n}", "y") for n in range(199)], b"ok")),
    "a long field": Behaviour(reply(200, [("X", "y" * 60_000)], b"ok")),
    "empty value": Behaviour(reply(200, [("X", ""), ("Y", " \t ")], b"ok")),
    "a tab in a value": Behaviour(reply(200, [("X", "a\tb")], b"ok")),
    # Surplus.
    "surplus answer": Behaviour(reply(200, (), b"ok") + SECOND),
    "surplus behind chunks": Behaviour(chunked([b"ok"]) + SECOND),
    "surplus line end": Behaviour(reply(200, (), b"ok") + b"\r\n"),
    "surplus line end behind chunks": Behaviour(chunked([b"ok"]) + b"\r\n"),
    "surplus behind 204": Behaviour(head(204) + SECOND),
    "surplus behind 304": Behaviour(head(304) + SECOND),
    "a body to HEAD": Behaviour(reply(200, (), b"body"), method="HEAD"),
    "surplus octet": Behaviour(reply(200, (), b"ok") + b"x"),
    # Not HTTP/1.
    "nothing": Behaviour(b"", closes=True),
    "a banner": Behaviour(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "HTTP/0.9": Behaviour(b"<html>hello</html>", closes=True),
    "HTTP/0.9 that stays": Behaviour(b"<html>hello</html>\r\n\r\n"),
    "HTTP/2": Behaviour(b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    "HTTP/2 settings": Behaviour(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    "HTTP/1.2": Behaviour(b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    "ICY": Behaviour(b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    "a request": Behaviour(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a line end before": Behaviour(b"\r\n" + reply(200, (), b"ok")),
    "zeros": Behaviour(bytes(100)),
    # Status lines.
    "status 999": Behaviour(b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n"),
    "status 600": Behaviour(b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n"),
    "status 099": Behaviour(b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n"),
    "status 000": Behaviour(b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n"),
    "status 20": Behaviour(b"HTTP/1.1 20 X\r\nContent-Length: 0\r\n\r\n"),
    "status 2000": Behaviour(b"HTTP/1.1 2000 X\r\nContent-Length: 0\r\n\r\n"),
    "status +20": Behaviour(b"HTTP/1.1 +20 X\r\nContent-Length: 0\r\n\r\n"),
    "status without end": Behaviour(b"HTTP/1.1 200", closes=True),
    "two spaces before the status": Behaviour(b"HTTP/1.1  200 X\r\nContent-Length: 0\r\n\r\n"),
    "NUL in the reason": Behaviour(b"HTTP/1.1 200 a\x00b\r\nContent-Length: 0\r\n\r\n"),
    "101": Behaviour(head(101, [("Upgrade", "x"), ("Connection", "upgrade")])),
    "only interim answers": Behaviour(head(102), closes=True),
    "too many interim answers": Behaviour(head(102) * 17 + reply(200, (), b"ok")),
    # Fields.
    "folded": Behaviour(OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nok"),
    "bare LF everywhere": Behaviour(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    "bare LF in a field": Behaviour(OK + b"X: a\nContent-Length: 2\r\n\r\nok"),
    "bare LF at the end": Behaviour(OK + b"Content-Length: 2\r\n\nok"),
    "bare CR": Behaviour(OK + b"X: a\rY: b\r\nContent-Length: 2\r\n\r\nok"),
    "NUL in a value": Behaviour(OK + b"X: a\x00b\r\nContent-Length: 2\r\n\r\nok"),
    "control character in a value": Behaviour(OK + b"X: a\x01\r\nContent-Length: 2\r\n\r\nok"),
    "DEL in a value": Behaviour(OK + b"X: a\x7f\r\nContent-Length: 2\r\n\r\nok"),
    "NUL in a name": Behaviour(OK + b"X\x00: a\r\nContent-Length: 2\r\n\r\nok"),
    "space in a name": Behaviour(OK + b"X Y: a\r\nContent-Length: 2\r\n\r\nok"),
    "space before the colon": Behaviour(OK + b"Content-Length : 2\r\n\r\nok"),
    "no colon": Behaviour(OK + b"X\r\nContent-Length: 2\r\n\r\nok"),
    "no name": Behaviour(OK + b": a\r\nContent-Length: 2\r\n\r\nok"),
    "a thousand fields": Behaviour(reply(200, [(f"X-{n}", "y") for n in range(1000)], b"ok")),
    "too large a header": Behaviour(reply(200, [("X", "y" * 200_000)], b"ok")),
    "a header without end": Behaviour(OK + b"X: y\r\n" * 20_000),
    "a header that is cut": Behaviour(OK + b"X: y\r\n", closes=True),
    # Framing.
    "two lengths": Behaviour(
        head(200, [("Content-Length", "1"), ("Content-Length", "2")]) + b"ok"
    ),
    "a list of lengths": Behaviour(head(200, [("Content-Length", "2, 2")]) + b"ok"),
    "a length with a sign": Behaviour(head(200, [("Content-Length", "+2")]) + b"ok"),
    "a negative length": Behaviour(head(200, [("Content-Length", "-2")]) + b"ok"),
    "a length in hexadecimal": Behaviour(head(200, [("Content-Length", "0x2")]) + b"ok"),
    "a length in words": Behaviour(head(200, [("Content-Length", "two")]) + b"ok"),
    "an empty length": Behaviour(head(200, [("Content-Length", "")]) + b"ok"),
    "a huge length": Behaviour(head(200, [("Content-Length", "9" * 30)]) + b"ok"),
    "length and coding": Behaviour(
        head(200, [("Content-Length", "2"), ("Transfer-Encoding", "chunked")]) + LAST_CHUNK
    ),
    "coding and length": Behaviour(
        head(200, [("Transfer-Encoding", "chunked"), ("Content-Length", "2")]) + LAST_CHUNK
    ),
    "gzip, chunked": Behaviour(head(200, [("Transfer-Encoding", "gzip, chunked")]) + LAST_CHUNK),
    "chunked, identity": Behaviour(
        head(200, [("Transfer-Encoding", "chunked, identity")]) + LAST_CHUNK
    ),
    "chunked twice": Behaviour(
        head(200, [("Transfer-Encoding", "chunked")] * 2) + LAST_CHUNK
    ),
    "identity": Behaviour(head(200, [("Transfer-Encoding", "identity")])),
    "chunked with a parameter": Behaviour(
        head(200, [("Transfer-Encoding", "chunked;q=1")]) + LAST_CHUNK
    ),
    "vertical tab and chunked": Behaviour(
        OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + LAST_CHUNK
    ),
    "chunked in HTTP/1.0": Behaviour(
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST_CHUNK
    ),
    # Chunks.
    "chunk size in words": Behaviour(CHUNKED + b"two\r\nok\r\n" + LAST_CHUNK),
    "chunk size with a sign": Behaviour(CHUNKED + b"+2\r\nok\r\n" + LAST_CHUNK),
    "chunk size with a prefix": Behaviour(CHUNKED + b"0x2\r\nok\r\n" + LAST_CHUNK),
    "chunk size with an underscore": Behaviour(CHUNKED + b"1_0\r\n" + bytes(16) + b"\r\n"),
    "chunk size behind a space": Behaviour(CHUNKED + b" 2\r\nok\r\n" + LAST_CHUNK),
    "chunk size before a space": Behaviour(CHUNKED + b"2 \r\nok\r\n" + LAST_CHUNK),
    "empty chunk size": Behaviour(CHUNKED + b"\r\nok\r\n" + LAST_CHUNK),
    "chunk size beyond 64 bits": Behaviour(CHUNKED + b"f" * 17 + b"\r\nok\r\n"),
    "chunk size that ends in LF": Behaviour(CHUNKED + b"2\nok\r\n" + LAST_CHUNK),
    "chunk that ends in LF": Behaviour(CHUNKED + b"2\r\nok\n" + LAST_CHUNK),
    "chunk longer than its size": Behaviour(CHUNKED + b"2\r\nokay\r\n" + LAST_CHUNK),
    "chunk without end": Behaviour(CHUNKED + b"2\r\nok" + LAST_CHUNK),
    "a long chunk extension": Behaviour(
        CHUNKED + b"2;" + b"a" * 300_000 + b"\r\nok\r\n" + LAST_CHUNK
    ),
    "NUL in a chunk extension": Behaviour(CHUNKED + b"2;\x00\r\nok\r\n" + LAST_CHUNK),
    "a folded trailer": Behaviour(CHUNKED + chunk(b"ok") + b"0\r\nX: a\r\n b\r\n\r\n"),
    "long trailers": Behaviour(CHUNKED + chunk(b"ok") + b"0\r\n" + b"X: y\r\n" * 1_000 + b"\r\n"),
    # Cuts.
    "cut in a counted body": Behaviour(head(200, [("Content-Length", "9")]) + b"ok", closes=True),
    "cut in a chunk": Behaviour(CHUNKED + b"9\r\nok", closes=True),
    "cut between chunks": Behaviour(CHUNKED + chunk(b"ok"), closes=True),
    "cut in the last chunk": Behaviour(CHUNKED + chunk(b"ok") + b"0\r\n", closes=True),
    "silence in the header": Behaviour(OK),
    "silence in the body": Behaviour(head(200, [("Content-Length", "9")]) + b"ok"),
}  # fmt: skip
