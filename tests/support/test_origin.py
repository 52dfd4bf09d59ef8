"""The loopback origin records octets and answers as told."""

import asyncio
import urllib.request

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
