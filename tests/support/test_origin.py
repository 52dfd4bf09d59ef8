"""The loopback origin records octets and answers as told."""

import asyncio
import urllib.request

import pytest

from tests.support.canaries import LEDGER
from tests.support.collector import TraceCollector
from tests.support.origin import Exchange, Origin, ThreadedOrigin, chunk, reply, sse


async def _exchange(origin: Origin, raw: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", origin.port)
    writer.write(raw)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_records_a_request_in_its_own_case_and_order() -> None:
    """Header pairs, target and body are kept as they came."""
    async with Origin(reply(200, [("X-A", "1")], b"hi")) as origin:
        answer = await _exchange(
            origin, b"POST /a%2Fb?c HTTP/1.1\r\nHost: h\r\nX-KEY: v \r\nContent-Length: 2\r\n\r\nok"
        )
    assert answer == b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nhi"
    assert origin.last.headers == [("Host", "h"), ("X-KEY", "v"), ("Content-Length", "2")]
    assert (origin.last.method, origin.last.target, origin.last.body) == ("POST", "/a%2Fb?c", b"ok")


async def test_reads_a_chunked_body_and_answers_in_turn() -> None:
    """A list answers in turn; its last one repeats."""
    async with Origin([reply(201), reply(204)]) as origin:
        one = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"ab")
        answers = await _exchange(origin, (one + b"0\r\nT: 1\r\n\r\n") * 3)
    assert answers.count(b"201 Created") == 1
    assert answers.count(b"204 No Content") == 2
    assert [request.body for request in origin.requests] == [b"ab"] * 3
    assert origin.last.trailers == [("T", "1")]


async def test_an_abort_is_seen_as_a_reset() -> None:
    """`abort` sends RST, not FIN."""

    async def handler(exchange: Exchange) -> None:
        exchange.abort()

    async with Origin(handler) as origin:
        try:
            outcome: object = await _exchange(origin, b"GET / HTTP/1.1\r\n\r\n")
        except ConnectionResetError as reset:
            outcome = reset
    assert isinstance(outcome, ConnectionResetError)


def test_threaded_origin_serves_a_blocking_client() -> None:
    """The same origin for tests that are not async."""
    with (
        ThreadedOrigin(sse(["one", "two"])) as origin,
        urllib.request.urlopen(origin.url + "/x", timeout=5) as answer,
    ):
        assert answer.read() == b"data: one\n\ndata: two\n\n"
    assert origin.last.path == "/x"


@pytest.mark.parametrize("where", [b"/?a=%b", b"/ HTTP/1.1\r\nX-A: %b", b"body"])
@pytest.mark.parametrize("kind", [Origin, TraceCollector])
async def test_what_is_sent_on_is_looked_at(where: bytes, kind: type[Origin]) -> None:
    """No upstream is given a platform token; a collector of traces not even a key."""
    token, key = b"kr_0123456789ab_" + b"E" * 38, b"sk-CANARY-0123456789-abcdefgh"
    LEDGER.token(token.decode())
    LEDGER.key(key)
    found = []
    async with kind() as origin:
        for secret in (b"nothing", key, token):
            target, body = (where % secret, b"") if b"%b" in where else (b"/", secret)
            ending = b"" if b"HTTP" in target else b" HTTP/1.1"
            length = b"Content-Length: %d" % len(body)
            raw = b"POST %b%b\r\nHost: h\r\n%b\r\n\r\n" % (target, ending, length)
            origin.answer_with(reply(200, [("Connection", "close")]))
            await _exchange(origin, raw + body)
            found.append(len(LEDGER.leaks))
            LEDGER.leaks.clear()
    assert found == ([0, 1, 1] if kind is TraceCollector else [0, 0, 1])
