"""Finished calls to a collector: together, in a thread of its own, and never at a call's cost."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterable

import pytest

from proxy.record import CallRecord
from proxy.traces.sending import Fate, Sender
from tests.support.records import CALL

SECONDS = 20.0


def record(number: int) -> CallRecord:
    return CALL._replace(id=str(number))


def encoder() -> object:
    def encode(records: Iterable[CallRecord]) -> bytes:
        return ",".join(one.id for one in records).encode()

    return encode


class Double:
    """A collector that answers what the test says, one answer for each request."""

    def __init__(self) -> None:
        self.asked: queue.Queue[bytes] = queue.Queue()
        self.fates: queue.Queue[tuple[Fate, str]] = queue.Queue()

    def take(self, octets: bytes) -> tuple[Fate, str]:
        self.asked.put(octets)
        return self.fates.get(timeout=SECONDS)

    def close(self) -> None:
        """Nothing is open."""

    def next(self) -> bytes:
        return self.asked.get(timeout=SECONDS)

    def answer(self, fate: Fate, why: str = "") -> None:
        self.fates.put((fate, why))


def sender(collector: Double, bound: int = 10) -> Sender:
    return Sender(collector, encoder, bound=bound, gather=0.0)  # type: ignore[arg-type]


def test_what_came_is_sent_and_the_end_sends_the_rest() -> None:
    """In order; `close` waits for the last ones."""
    collector = Double()
    sending = sender(collector)
    sending.start()
    sending.add(record(1))
    assert collector.next() == b"1"
    sending.add(record(2))
    sending.add(record(3))
    for _ in range(3):
        collector.answer(Fate.TAKEN)
    sending.close()
    rest = b",".join(collector.asked.queue)
    assert rest == b"2,3"
    assert sending.lost == 0


def test_a_full_queue_drops_and_counts() -> None:
    """While the collector keeps the thread waiting, nobody else waits."""
    collector = Double()
    sending = sender(collector, bound=2)
    sending.start()
    sending.add(record(0))
    collector.next()
    for number in range(1, 6):
        sending.add(record(number))
    assert sending.lost == 3
    collector.answer(Fate.TAKEN)
    collector.answer(Fate.TAKEN)
    sending.close()
    assert list(collector.asked.queue) == [b"1,2"]


def test_a_failing_collector_is_told_once_and_once_more_when_it_works(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever is refused is dropped; no line for each batch."""
    caplog.set_level(logging.INFO, "keyrelay")
    collector = Double()
    sending = sender(collector)
    sending.start()
    for number in range(4):
        sending.add(record(number))
        assert collector.next() == str(number).encode()
        failing = number < 3
        collector.answer(Fate.REFUSED if failing else Fate.TAKEN, "it answers 404")
    sending.close()
    said = [one.getMessage() for one in caplog.records]
    assert said == [
        "the collector of server.traces_endpoint takes no traces: it answers 404",
        "the collector takes traces again; calls lost: 3",
    ]


def test_what_the_collector_may_take_later_is_sent_again() -> None:
    """The same calls, after a pause."""
    collector = Double()
    sending = Sender(collector, encoder, gather=0.0, pause=0.01)  # type: ignore[arg-type]
    sending.start()
    sending.add(record(1))
    for fate in (Fate.LATER, Fate.LATER, Fate.TAKEN):
        assert collector.next() == b"1"
        collector.answer(fate, "TimeoutError")
    sending.close()
    assert collector.asked.empty()
    assert sending.lost == 0


def test_the_end_waits_for_no_other_try() -> None:
    """What could not be taken by then is lost."""
    collector = Double()
    sending = sender(collector)
    sending.start()
    sending.add(record(1))
    collector.next()
    closing = threading.Thread(target=sending.close)
    closing.start()
    assert sending._ended.wait(SECONDS)
    collector.answer(Fate.LATER, "TimeoutError")
    closing.join(SECONDS)
    assert collector.asked.empty()
    assert sending.lost == 1


def test_an_unexpected_error_ends_no_sending(caplog: pytest.LogCaptureFixture) -> None:
    """Neither in a batch nor in what is loaded; the log has its kind, never its text."""

    def encode(records: Iterable[CallRecord]) -> bytes:
        raise ValueError("sk-CANARY")

    collector = Double()
    sending = Sender(collector, lambda: encode, gather=0.0)
    sending.start()
    sending.add(record(1))
    sending.close()
    assert sending.lost == 1
    assert "unexpected ValueError" in caplog.text
    assert "CANARY" not in caplog.text


def test_without_its_libraries_nothing_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    """The log says so once; calls go on."""
    failed = threading.Event()

    def nothing() -> object:
        failed.set()
        raise ImportError("no such thing")

    sending = Sender(Double(), nothing)  # type: ignore[arg-type]
    sending.start()
    sending.close()
    assert failed.is_set()
    sending.add(record(1))
    assert sending.lost == 1
    assert [one.getMessage() for one in caplog.records] == [
        "nothing is traced: unexpected ImportError"
    ]
