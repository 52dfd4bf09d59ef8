"""What is sent and received by the bench's own callers, and what it reads of processes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench import matter, table
from bench.__main__ import arguments, wanted
from bench.load import Load
from bench.origin import END, SLOW_EVENTS, WORD
from bench.paced import arrivals, complete, octets
from bench.processes import Stat, descendants, parse_stat, resident
from bench.reach import Goal
from bench.running import BrokenError
from bench.slow import whole


def test_bodies_have_their_size() -> None:
    """300 octets of question, 2 KB of answer, both JSON."""
    assert [len(matter.question(stream)) for stream in (False, True)] == [300, 300]
    assert len(matter.ANSWER) == 2048
    assert json.loads(matter.ANSWER)["choices"][0]["finish_reason"] == "stop"


def test_request_on_the_wire(tmp_path: Path) -> None:
    """A length, the fields, the body."""
    (tmp_path / "body").write_bytes(b"hello")
    sent = octets(Load("/x", "POST", (("A", "b"),), tmp_path / "body"), 9000)
    head, _, body = sent.partition(b"\r\n\r\n")
    expected = [b"POST /x HTTP/1.1", b"Host: 127.0.0.1:9000", b"Content-Length: 5", b"A: b"]
    assert (head.split(b"\r\n"), body) == (expected, b"hello")


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Le", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", True),
    ],
)
def test_answer_is_complete(received: bytes, expected: bool) -> None:
    """By its length."""
    assert complete(received) is expected


def test_refusal_is_no_answer() -> None:
    """Refusals are quick: they must not be timed."""
    with pytest.raises(BrokenError, match="401"):
        complete(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")


def test_arrivals_keep_the_rate() -> None:
    """As many as asked for, in order, the same every time."""
    found = list(arrivals(1000, 10))
    assert len(found) == pytest.approx(10_000, rel=0.05)
    assert found == sorted(found) == list(arrivals(1000, 10))
    assert found[-1] < 10


def test_stream_is_whole() -> None:
    """All events, and the end of the transfer."""
    events = WORD * (SLOW_EVENTS - 1) + END
    assert whole(events)
    assert not whole(events[:-5])
    assert not whole(events.removeprefix(WORD))


def test_stat_line_with_a_strange_name() -> None:
    """A command may be called `a) b (c`."""
    rest = "S 7 " + " ".join(str(number) for number in range(5, 53))
    found = parse_stat(f"42 (a) b (c) {rest}")
    assert (found.pid, found.parent, found.ticks) == (42, 7, 14 + 15)
    assert found.resident == 24 * os.sysconf("SC_PAGE_SIZE")


def test_descendants() -> None:
    """Children of children, and nobody else's."""
    parents = {1: 0, 2: 1, 3: 2, 4: 1, 5: 4, 6: 0}
    stats = {pid: Stat(pid, parent, 0, 0) for pid, parent in parents.items()}
    assert {one.pid for one in descendants(2, stats)} == {2, 3}
    assert {one.pid for one in descendants(1, stats)} == {1, 2, 3, 4, 5}


def test_own_process_takes_memory() -> None:
    """The kernel's numbers are read."""
    assert resident(os.getpid()) > 1e6


def test_what_is_asked_for() -> None:
    """Names with commas, * for anything; nothing asked is everything."""
    asked = arguments(["--only", "hit,sse*"])
    names = ("hit", "hit-disk", "sse-burst", "forward")
    assert [wanted(asked.only, name) for name in names] == [True, False, True, False]
    assert wanted(None, "anything")


def test_table_of_goals() -> None:
    """Numbers to the right, the verdict at the end."""
    text = table.goals([Goal("hit", "x bare", 2.5, 3.0), Goal("forward", "x bare", None, 5.0)])
    _, first, second = text.splitlines()
    assert first.split() == ["hit", "x", "bare", "2.5", "3", "-", "reached"]
    assert second.endswith("not measured")
