"""Sends finished calls to a collector, by a thread of its own and many together.

A collector that does not answer delays no call: so many wait, the others are counted and dropped,
and the log says so once, until it takes traces again.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final, Protocol

from proxy.causes import lineage
from proxy.record import CallRecord

QUEUE: Final = 4096
"""Calls that may wait to be sent."""

BATCH: Final = 256
GATHER_SECONDS: Final = 1.0
LAST_SECONDS: Final = 2.0
"""How long the end of the server waits for the last calls to be taken."""

PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""After a request that was not taken: the first time, and at most."""

_log = logging.getLogger("keyrelay.traces")


class Fate(Enum):
    """What became of a request to the collector."""

    TAKEN = "taken"
    LATER = "later"
    REFUSED = "refused"


class Collector(Protocol):
    """Where traces go."""

    def take(self, octets: bytes) -> tuple[Fate, str]:
        """Sends one body; what became of it, and why. Waits seconds at most."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


Encode = Callable[[Iterable[CallRecord]], bytes]


class Sender:
    """The queue and its thread. `encoder` is asked for in that thread: what it loads delays no
    start. `bound`: how many calls wait; `gather`, `pause`: seconds, as above."""

    def __init__(
        self,
        collector: Collector,
        encoder: Callable[[], Encode],
        *,
        bound: int = QUEUE,
        gather: float = GATHER_SECONDS,
        pause: float = PAUSE,
    ) -> None:
        self._collector = collector
        self._encoder = encoder
        self._bound = bound
        self._gather = gather
        self._pause = pause
        self._calls: deque[CallRecord] = deque()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._dropped = 0  # changed where calls come in
        self._refused = 0  # changed by the thread
        self._told = 0
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="keyrelay-traces", daemon=True)

    @property
    def lost(self) -> int:
        """Calls that no collector got."""
        return self._dropped + self._refused

    def start(self) -> None:
        """Begins to send."""
        self._thread.start()

    def add(self, record: CallRecord) -> None:
        """Takes a call; never waits."""
        if len(self._calls) >= self._bound:
            self._dropped += 1
            return
        self._calls.append(record)
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Sends what waits, if it is taken in time."""
        self._ended.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(LAST_SECONDS)

    # In the thread.

    def _run(self) -> None:
        try:
            encode = self._encoder()
            while self._await_calls():
                self._send_all(encode)
        except Exception as error:  # a library that can't be loaded
            self._bound = 0
            self._calls.clear()
            _log.error("nothing is traced: unexpected %s", lineage(error))
        finally:
            self._collector.close()

    def _await_calls(self) -> bool:
        """Until calls have come and gathered; False: none has, and none will."""
        while not self._calls:
            if self._ended.is_set():
                return False
            self._wake.wait()
            self._wake.clear()
        self._ended.wait(self._gather)
        return True

    def _send_all(self, encode: Encode) -> None:
        pause = self._pause
        while self._calls:
            batch = [self._calls.popleft() for _ in range(min(BATCH, len(self._calls)))]
            fate, why = self._send(encode, batch)
            self._tell(fate, why)
            if fate is Fate.LATER and not self._ended.is_set():
                self._calls.extendleft(reversed(batch))
                self._ended.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            elif fate is not Fate.TAKEN:
                self._refused += len(batch)
                if self._ended.is_set():
                    self._calls.clear()

    def _send(self, encode: Encode, batch: Iterable[CallRecord]) -> tuple[Fate, str]:
        try:
            return self._collector.take(encode(batch))
        except Exception as error:  # the next ones may be better
            return Fate.REFUSED, f"unexpected {lineage(error)}"

    def _tell(self, fate: Fate, why: str) -> None:
        """Only what is new."""
        failing = fate is not Fate.TAKEN
        if failing and not self._failing:
            _log.warning("the collector of server.traces_endpoint takes no traces: %s", why)
        elif self._failing and not failing:
            _log.info("the collector takes traces again; calls lost: %d", self.lost - self._told)
            self._told = self.lost
        self._failing = failing
