"""Counts calls as they end: plain numbers, so that a call costs little and sums add up.

Nothing here is a metric yet: `families` names them at a scrape. The numbers of several processes
are those of one, added. Whatever callers write makes no new series: services are those of the
registry, codes those of the catalogue, keys those that the vault gave out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from proxy.catalogue import CATALOGUE
from proxy.errors import Overloaded
from proxy.record import CallRecord

SECONDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
"""Bounds for what an upstream has a part in; a stream may take minutes."""

OWN_SECONDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
)
"""Bounds for our own share."""

VERDICTS: Final = frozenset({"hit", "collapsed", "stored", "miss", "bypass"})
CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
NONE: Final = "none"
OTHER: Final = "other"
MOST_SERVICES: Final = 1000
MOST_KEYS: Final = 10_000
"""Services and keys that are counted apart, however often the registry or the vault changes."""

CODES: Final = frozenset(kind.code for kind in CATALOGUE)
REJECTIONS: Final = frozenset(
    kind.code for kind in CATALOGUE if kind.status == 429 or issubclass(kind, Overloaded)
)
"""Codes that say: not now, there is a limit."""

_THEIRS: Final = frozenset({"hit", "collapsed", ""})
"""Verdicts on calls that have not gone upstream themselves."""

Place = tuple[str, str, str]
"""Service, class of the status, verdict."""

KeyPlace = tuple[str, str, str]
"""Tenant, service, alias."""


class Spread:
    """How values are spread: a count for each bound and one beyond, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """One value more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def copy(self) -> Spread:
        """The same numbers, which no longer change."""
        made = Spread(self.bounds)
        made.counts, made.total = self.counts.copy(), self.total
        return made


class OfService:
    """What is counted of one service. `received`, `sent`: octets of bodies; `cut`: transfers broken
    after their start; `upstream`: until an upstream's header; `overhead`: our own share until then;
    `waited`: in our queue, where a call had to."""

    __slots__ = ("cut", "overhead", "received", "sent", "upstream", "waited")

    def __init__(self) -> None:
        self.received = self.sent = self.cut = 0
        self.upstream = Spread(SECONDS)
        self.waited = Spread(SECONDS)
        self.overhead = Spread(OWN_SECONDS)

    def copy(self) -> OfService:
        """The same numbers, which no longer change."""
        made = OfService()
        made.received, made.sent, made.cut = self.received, self.sent, self.cut
        made.upstream, made.waited = self.upstream.copy(), self.waited.copy()
        made.overhead = self.overhead.copy()
        return made


class OfKey:
    """What is counted of one key; `last` in Unix seconds."""

    __slots__ = ("calls", "last")

    def __init__(self, calls: int = 0, last: float = 0.0) -> None:
        self.calls = calls
        self.last = last


class Tallies:
    """The Observer that counts. `known`: whether the registry has a service of this name."""

    def __init__(self, known: Callable[[str], bool]) -> None:
        self._known = known
        self.calls: dict[Place, Spread] = {}
        self.services: dict[str, OfService] = {}
        self.errors: dict[tuple[str, str], int] = {}
        self.keys: dict[KeyPlace, OfKey] = {}
        self._seen: dict[tuple[str, int, str], tuple[Spread, OfService]] = {}

    def observe(self, record: CallRecord) -> None:
        """One call is over."""
        place = record.service, record.status, record.verdict
        seconds, service = self._seen.get(place) or self._meet(place)
        seconds.add(record.seconds)
        service.received += record.received
        service.sent += record.sent
        if record.answered is not None:
            self._split(record, service)
        if record.waited:
            service.waited.add(record.waited)
        if record.cut:
            service.cut += 1
        if record.code:
            self._fail(record)
        if record.key and record.verdict not in _THEIRS:
            self._use(record)

    def copy(self) -> Tallies:
        """The same numbers, which no longer change."""
        made = Tallies(self._known)
        made.calls = {place: spread.copy() for place, spread in self.calls.items()}
        made.services = {name: service.copy() for name, service in self.services.items()}
        made.errors = dict(self.errors)
        made.keys = {place: OfKey(key.calls, key.last) for place, key in self.keys.items()}
        return made

    def rejections(self) -> dict[str, int]:
        """How often a limit said no, by code."""
        found = dict.fromkeys(sorted(REJECTIONS), 0)
        for (_service, code), count in self.errors.items():
            if code in found:
                found[code] += count
        return found

    def _meet(self, place: tuple[str, int, str]) -> tuple[Spread, OfService]:
        """Where calls like this one are counted, by names from bounded sets."""
        name, status, verdict = self._name(place[0]), place[1] // 100, place[2]
        group = CLASSES[status] if 0 <= status < len(CLASSES) else OTHER
        named = name, group, verdict if verdict in VERDICTS else NONE
        spread = self.calls.setdefault(named, Spread(SECONDS))
        service = self.services.setdefault(name, OfService())
        if name != OTHER and len(self._seen) < 16 * MOST_SERVICES:
            self._seen[place] = spread, service
        return spread, service

    def _name(self, name: str) -> str:
        if not name:
            return NONE
        if name in self.services:
            return name
        return name if self._known(name) and len(self.services) < MOST_SERVICES else OTHER

    def _split(self, record: CallRecord, service: OfService) -> None:
        """Our share and the upstream's, where the call did not wait for another one's answer."""
        if record.verdict == "collapsed":
            return
        upstream = record.upstream_seconds or 0.0
        if record.upstream_seconds is not None and record.verdict != "hit":
            service.upstream.add(upstream)
        service.overhead.add(max((record.answered or 0.0) - upstream - record.waited, 0.0))

    def _fail(self, record: CallRecord) -> None:
        code = record.code if record.code in CODES else OTHER
        place = self._name(record.service), code
        self.errors[place] = self.errors.get(place, 0) + 1

    def _use(self, record: CallRecord) -> None:
        place = record.tenant, record.service, record.key
        key = self.keys.get(place)
        if key is None:
            if len(self.keys) >= MOST_KEYS:
                return
            key = self.keys[place] = OfKey()
        key.calls += 1
        key.last = record.began
