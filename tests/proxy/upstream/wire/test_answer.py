"""One answer from octets, in whatever pieces they come."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import RelayError, UpstreamError, UpstreamIncomplete, UpstreamUnreachable
from proxy.upstream.wire.answer import Answer
from tests.proxy.upstream.wire.corpus import CHUNKED, CORPUS, SECOND
from tests.support.origin import chunk, chunked, head, reply

WHOLE = {
    "counted": reply(201, [("X-A", "1")], b"0123456789"),
    "chunked": chunked([b"one", b"", b"t" * 20][::2], 200, [("X-A", "1")]),
    "extended": CHUNKED + b'3;a="b"\r\none\r\n0\r\nX-T: 1\r\n\r\n',
    "interim": head(100) + head(103, [("Link", "</x>")]) + reply(200, (), b"ok"),
    "bodiless": head(204),
}


def read(*pieces: bytes, method: str = "GET", ended: bool = False) -> Answer:
    answer = Answer(method)
    for piece in pieces:
        answer.feed(piece)
    if ended:
        answer.end(None)
    return answer


def told(answer: Answer) -> tuple[object, ...]:
    """All that a caller, or the next one, could notice."""
    error: RelayError | None = answer.error
    alive = answer.seconds_to_live(30.0)
    what = (type(error), error and error.detail)
    return answer.head, b"".join(answer.chunks), answer.complete, what, alive


@pytest.mark.parametrize("name", CORPUS)
def test_pieces_make_no_difference(name: str) -> None:
    """Octet by octet, or cut in two anywhere: the same answer."""
    behaviour = CORPUS[name]
    raw, ended = behaviour.raw[:70_000], behaviour.closes
    if not raw:
        return
    expected = told(read(raw, method=behaviour.method, ended=ended))
    octets = [raw[at : at + 1] for at in range(len(raw))]
    if len(raw) < 5000:
        assert told(read(*octets, method=behaviour.method, ended=ended)) == expected
        for at in range(1, len(raw)):
            in_two = read(raw[:at], raw[at:], method=behaviour.method, ended=ended)
            assert told(in_two) == expected


@settings(max_examples=200)
@given(st.sampled_from(sorted(CORPUS)), st.lists(st.integers(1, 400), max_size=20))
def test_no_pieces_make_a_difference(name: str, sizes: list[int]) -> None:
    """The same with any number of cuts."""
    behaviour = CORPUS[name]
    raw, pieces = behaviour.raw[:6000], []
    rest = raw
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    pieces = [piece for piece in (*pieces, rest) if piece]
    whole = [raw] if raw else []
    assert told(read(*pieces, method=behaviour.method)) == told(
        read(*whole, method=behaviour.method)
    )


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_no_octets_break_the_reader(octets: bytes) -> None:
    """Whatever comes is an answer, or an error of ours."""
    for begin in (b"", b"HTTP/1.1 200 OK\r\n", CHUNKED):
        answer = read(begin + octets + b"\r\n\r\n", ended=True)
        assert answer.over
        assert answer.error is None or isinstance(answer.error, UpstreamError)


@pytest.mark.parametrize("raw", WHOLE.values(), ids=WHOLE)
def test_a_cut_answer_is_never_whole(raw: bytes) -> None:
    """Cut behind every octet but the last."""
    assert read(raw, ended=True).complete
    for at in range(len(raw)):
        pieces = [raw[:at]] if at else []
        cut = read(*pieces, ended=True)
        assert not cut.complete
        expected = UpstreamIncomplete if cut.head else UpstreamError if at else UpstreamUnreachable
        assert type(cut.error) is expected


@pytest.mark.parametrize("raw", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize(
    "surplus", [b"x", b"\r\n", b"\n", b"\r", b"0\r\n\r\n", SECOND, chunk(b"x")]
)
@pytest.mark.parametrize("apart", [False, True])
def test_surplus_is_never_body_and_ends_the_connection(
    raw: bytes, surplus: bytes, apart: bool
) -> None:
    """In the same read or a later one."""
    clean = read(raw)
    answer = read(raw, surplus) if apart else read(raw + surplus)
    assert (answer.head, answer.chunks) == (clean.head, clean.chunks)
    assert answer.complete
    assert clean.seconds_to_live(30.0) == 30.0
    assert answer.seconds_to_live(30.0) == 0.0


@pytest.mark.parametrize(
    ("says", "seconds"),
    [
        ([], 30.0),
        ([("Keep-Alive", "timeout=5, max=100")], 4.0),
        ([("Keep-Alive", 'max=1, timeout = "3"')], 2.0),
        ([("Keep-Alive", "timeout=1")], 0.0),
        ([("Keep-Alive", "timeout=300")], 30.0),
        ([("Keep-Alive", "nonsense")], 30.0),
        ([("Connection", "keep-alive")], 30.0),
        ([("Connection", "CLOSE")], 0.0),
        ([("Connection", "x"), ("Connection", "y, close")], 0.0),
    ],
)
def test_the_upstream_says_how_long_it_keeps_a_connection(
    says: list[tuple[str, str]], seconds: float
) -> None:
    """A second less, for what is under way."""
    assert read(reply(200, says, b"ok")).seconds_to_live(30.0) == seconds


def test_a_broken_connection_is_no_end_of_a_body() -> None:
    """Without framing only a clean end is one (RFC 9112 section 9.8)."""
    answer = read(head(200) + b"all")
    answer.end(ConnectionResetError())
    assert isinstance(answer.error, UpstreamIncomplete)
    assert isinstance(answer.error.__cause__, ConnectionResetError)
    assert answer.take() == b"all"


def test_trailers_are_no_fields() -> None:
    """They are dropped, and the connection lives on."""
    answer = read(CHUNKED + chunk(b"x") + b"0\r\nSet-Cookie: a=1\r\n\r\n")
    assert answer.head is not None
    assert answer.head.fields == ((b"transfer-encoding", b"chunked"),)
    assert answer.seconds_to_live(30.0) == 30.0


def test_what_comes_between_chunks_is_bounded() -> None:
    """Extensions and trailers that never end are a cut."""
    for endless in (b"5;" + b"a" * 20_000, b"0\r\n" + b"X: y\r\n" * 4000):
        answer = read(CHUNKED, *[endless[at : at + 999] for at in range(0, len(endless), 999)])
        assert isinstance(answer.error, UpstreamIncomplete)


def test_a_failed_answer_takes_no_more() -> None:
    """What came before the failure stays, what comes behind it is surplus."""
    answer = read(CHUNKED + chunk(b"a") + b"x\r\n")
    answer.feed(chunk(b"b"))
    answer.end(None)
    assert answer.take() == b"a"
    assert answer.surplus
    assert isinstance(answer.error, UpstreamIncomplete)
