"""From answers to tokens: whole and long, plain and compressed, cut wherever it may be."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.messages import Fields
from proxy.record import Meter, Tokens
from proxy.usage import Metering
from proxy.usage.meter import MOST_CODED, MOST_INFLATED, TOO_DENSE
from proxy.usage.tokens import of_body, of_stream
from proxy.usage.window import HEAD, MOST, TAIL, Window
from tests.proxy.usage import transcripts
from tests.proxy.usage.transcripts import BODIES, GPT, STREAMS, TRICKS, event

JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
SHORT = "Hello, Wörld! " + "".join(TRICKS)
LONG = SHORT * 1500

CASES = [
    *[
        pytest.param(JSON, make, tokens, id=f"{name} body")
        for name, (make, tokens) in BODIES.items()
    ],
    *[
        pytest.param(EVENTS, make, tokens, id=f"{name} stream")
        for name, (make, tokens) in STREAMS.items()
    ],
]
answers = pytest.mark.parametrize(("kind", "make", "tokens"), CASES)
Make = Callable[[str], bytes]

GZIPPED = (JSON, (b"content-encoding", b"gzip"))
(SOON, _), (LATER, _) = TOO_DENSE


def metered(fields: Fields, *parts: bytes) -> Tokens | None:
    meter = Metering()(200, fields)
    assert meter is not None
    for part in parts:
        meter.feed(part)
    return meter.tokens()


@answers
def test_cut_at_every_octet_an_answer_tells_its_tokens(
    kind: Any, make: Make, tokens: Tokens
) -> None:
    """In two parts at each place; what the model says itself is not believed."""
    octets = make(SHORT)
    for at in range(len(octets) + 1):
        assert metered((kind,), octets[:at], octets[at:]) == tokens


@answers
@pytest.mark.parametrize("size", [1, 1000, 65536, 10**9])
def test_a_long_answer_tells_its_tokens_from_its_ends(
    kind: Any, make: Make, tokens: Tokens, size: int
) -> None:
    """Longer than what is held of it, in chunks of any size."""
    octets = make(LONG)
    assert len(octets) > MOST
    parts = [octets[at : at + size] for at in range(0, len(octets), size)]
    assert metered((kind,), *parts) == tokens


@answers
@pytest.mark.parametrize("words", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw"])
def test_a_compressed_answer_tells_its_tokens(
    kind: Any, make: Make, tokens: Tokens, words: str, coding: str
) -> None:
    """As most SDKs get theirs; `deflate` in both of its meanings."""
    octets = make(words)
    raw = zlib.compressobj(wbits=-15)
    coded = {
        "gzip": gzip.compress(octets),
        "deflate": zlib.compress(octets),
        "raw": raw.compress(octets) + raw.flush(),
    }[coding]
    name = b"gzip" if coding == "gzip" else b"Deflate"
    parts = [coded[at : at + 700] for at in range(0, len(coded), 700)]
    assert metered((kind, (b"content-encoding", name)), *parts) == tokens


@answers
def test_an_answer_that_was_cut_tells_no_more_than_it_said(
    kind: Any, make: Make, tokens: Tokens
) -> None:
    """At each place: nothing, or numbers that are none too large."""
    octets = make(SHORT)
    for at in range(0, len(octets), 7):
        found = metered((kind,), octets[:at])
        assert found is None or (found.input <= tokens.input and found.output <= tokens.output)


@pytest.mark.parametrize(("said", "taken"), [(2**32 - 1, 2**32 - 1), (2**32, 0), (2**53 - 1, 0)])
def test_an_upstream_that_lies_brings_no_sum_to_its_end(said: int, taken: int) -> None:
    """A day of such answers still fits 64 bits; else no batch with one more could be written."""
    body = b'{"model":"m","usage":{"prompt_tokens":%d,"completion_tokens":7}}' % said
    assert metered((JSON,), body) == Tokens("m", taken, 7, 0)


def test_a_stream_of_claude_that_was_cut_tells_its_input() -> None:
    """It comes first, and was charged."""
    octets = transcripts.anthropic_stream(SHORT)
    found = metered((EVENTS,), octets[: octets.index(b"message_delta")])
    assert found == Tokens("claude-sonnet-4-20250514", 1900, 1, 1024)


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (400, (JSON,)),
        (304, (JSON,)),
        (200, ()),
        (200, ((b"content-type", b"text/html"),)),
        (200, ((b"content-type", b"application/json-seq"),)),
        (200, (JSON, (b"content-encoding", b"br"))),
        (200, (JSON, (b"content-encoding", b"gzip, gzip"))),
    ],
)
def test_other_answers_are_not_read(status: int, fields: Fields) -> None:
    """Failures, other kinds of content, codings that nobody here can read."""
    assert Metering()(status, fields) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"usage": {"prompt_tokens": 3}',
        b'{"usage": null}',
        b'{"usage": {}}',
        b'{"usage": 7}',
        b'{"usage": {"seconds": 7}}',
        b'{"data": {"usage": {"prompt_tokens": 3}}}',
        b'{"usage": {"prompt_tokens": 3}',
        b'\xff{"usage": {"prompt_tokens": 3}}\xff',
    ],
)
def test_other_documents_tell_nothing(body: bytes) -> None:
    """What is broken, deeper, or of another style."""
    assert metered((JSON,), body) is None


@pytest.mark.parametrize("count", ["-1", "1.5", '"7"', "true", "null", "[1]", "1e400", str(2**60)])
def test_what_is_no_count_counts_nothing(count: str) -> None:
    """The others of the same answer do."""
    usage = '{"prompt_tokens": ' + count + ', "completion_tokens": 5}'
    body = '{"model": "m", "usage": ' + usage + "}"
    assert metered((JSON,), body.encode()) in (Tokens("m", 0, 5), None)


def test_more_cached_than_given_is_all_that_was_given() -> None:
    """So that no cost is below zero."""
    details = {"prompt_tokens_details": {"cached_tokens": 9}}
    body = json.dumps({"model": "m", "usage": {"prompt_tokens": 5, **details}})
    assert metered((JSON,), body.encode()) == Tokens("m", 5, 0, 5)


def test_members_in_another_order_tell_the_same() -> None:
    """The usage first and the model last; a model with an escape in its name."""
    body = b'{"usage": {"prompt_tokens": 5, "completion_tokens": 6}, "model": "a\\u002fb"}'
    assert metered((JSON,), body) == Tokens("a/b", 5, 6)
    usage = body[1 : body.index(b"}") + 1]
    assert metered((JSON,), b'{"model": "a\\/b", ' + usage + b"}") == Tokens("a/b", 5, 6)


def test_numbers_in_every_event_are_those_of_the_last() -> None:
    """As some servers count on."""
    parts = [
        event("", {"model": "m", "usage": {"prompt_tokens": 5, "completion_tokens": number}})
        for number in range(5)
    ]
    assert metered((EVENTS,), *parts, b"data: [DONE]\n\n") == Tokens("m", 5, 4)


def test_an_answer_without_its_model_is_counted_all_the_same() -> None:
    """By no name."""
    assert metered((JSON,), b'{"usage": {"prompt_tokens": 5}}') == Tokens("", 5, 0)
    assert metered((EVENTS,), b'data: {"usage": {"prompt_tokens": 5}}\n') == Tokens("", 5, 0)


def test_an_answer_that_is_given_again_is_not_parsed_again() -> None:
    """A hit out of memory is the same octets; other octets are another answer."""
    metering = Metering()
    body = transcripts.openai_chat(SHORT)
    other = body.replace(b"1900", b"1800")

    def read(octets: bytes) -> Tokens | None:
        meter = metering(200, (JSON,))
        assert meter is not None
        meter.feed(octets)
        return meter.tokens()

    first = read(body)
    assert first == GPT
    assert read(body) is first
    assert read(other) == GPT._replace(input=1800)


# Bounds.


def test_a_meter_lets_go_of_what_it_has_read() -> None:
    """And still knows its tokens."""
    for fields in ((JSON,), (JSON, (b"content-encoding", b"gzip"))):
        meter = Metering()(200, fields)
        assert isinstance(meter, object)
        assert meter is not None
        body = transcripts.openai_chat(SHORT)
        meter.feed(gzip.compress(body) if len(fields) == 2 else body)
        assert meter.tokens() == GPT
        assert getattr(meter, "_parts") == []  # noqa: B009 - nobody else may look
        assert meter.tokens() == GPT


def test_a_bomb_is_not_inflated() -> None:
    """Beyond the bound it tells nothing."""
    deflating = zlib.compressobj(9, wbits=31)
    octets = [deflating.compress(bytes(2**20)) for _ in range(MOST_INFLATED // 2**20)]
    usage = deflating.compress(transcripts.openai_chat(SHORT)) + deflating.flush()
    coded = b"".join([*octets, usage])
    assert len(coded) < MOST_CODED
    assert metered((JSON, (b"content-encoding", b"gzip")), coded) is None


@pytest.mark.parametrize(("octets", "told"), [(SOON - 2**16, True), (2 * SOON, False)])
def test_what_shrinks_a_thousandfold_is_soon_left_alone(octets: int, told: bool) -> None:
    """Inflating costs the processor, and no answer of a model shrinks so: its beginning tells."""
    coded = gzip.compress(b" " * octets + transcripts.openai_chat(SHORT))
    assert (metered(GZIPPED, coded) is not None) == told


@pytest.mark.parametrize(("octets", "told"), [(LATER - 2**16, True), (2 * LATER, False)])
def test_what_shrinks_less_is_left_alone_later(octets: int, told: bool) -> None:
    """Some two hundredfold: an answer that says one word again and again does so."""
    line = random.Random(1).randbytes(80).hex().encode()
    coded = gzip.compress(line.ljust(400) * (octets // 400) + transcripts.openai_chat(SHORT))
    assert 100 < octets / len(coded) < 300
    assert (metered(GZIPPED, coded) is not None) == told


def test_too_much_that_is_compressed_is_not_kept() -> None:
    """Nor what comes after it."""
    meter = Metering()(200, (JSON, (b"content-encoding", b"gzip")))
    assert meter is not None
    meter.feed(bytes(MOST_CODED))
    assert meter.size == MOST_CODED
    meter.feed(b"x")
    meter.feed(b"y")
    assert meter.size == 0
    assert meter.tokens() is None


def test_what_is_not_compressed_as_it_says_tells_nothing() -> None:
    """Neither gzip nor deflate."""
    body = transcripts.openai_chat(SHORT)
    assert metered((JSON, (b"content-encoding", b"gzip")), body) is None


def test_gzip_that_was_cut_tells_what_came() -> None:
    """A stream's beginning."""
    coded = gzip.compress(transcripts.anthropic_stream(LONG))
    found = metered((EVENTS, (b"content-encoding", b"gzip")), coded[: len(coded) // 2])
    assert found is not None
    assert found.input == 1900


@given(parts=st.lists(st.binary(max_size=MOST // 3), max_size=12))
def test_a_window_holds_both_ends_of_any_body(parts: list[bytes]) -> None:
    """All of a short one; never more than its bound."""
    window, whole = Window(), b"".join(parts)
    for part in parts:
        window.feed(part)
        assert window.size <= MOST
    head, tail = window.ends()
    if window.whole:
        assert head == tail == whole
    else:
        assert head == whole[:HEAD]
        assert len(tail) >= TAIL
        assert whole.endswith(tail)


@given(octets=st.binary(max_size=300))
def test_no_octets_break_the_reading(octets: bytes) -> None:
    """Whatever an upstream sends."""
    for text in (octets, b'{"usage": {' + octets, b'data: {"usage":{"input_tokens":' + octets):
        for read in (of_body, of_stream):
            found = read(text, text)
            assert found is None or min(found[1:]) >= 0


def test_a_meter_is_what_records_carry() -> None:
    """By its Protocol."""
    meter: Meter | None = Metering()(200, (EVENTS,))
    assert meter is not None
    assert meter.size == 0
