"""What is measured of keyrelay alone: latency, slow streams, huge bodies, its start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench import huge, kept, latency, neighbour, slow, start
from bench.case import Bodies
from bench.huge import Huge
from bench.kept import Kept
from bench.latency import Latency
from bench.neighbour import Neighbour
from bench.peers.keyrelay import install
from bench.room import Room
from bench.running import BrokenError, said
from bench.slow import Slow
from bench.start import Start

NAMES = ("start", "latency", "slow", "huge", "kept", "neighbour")


@dataclass(slots=True)
class Figures:
    """What was measured; None what was not."""

    start: Start | None = None
    latency: Latency | None = None
    slow: Slow | None = None
    huge: Huge | None = None
    kept: Kept | None = None
    neighbour: Neighbour | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """Which figures, and how long."""

    names: tuple[str, ...]
    rounds: int
    seconds: int


def measure(room: Room, bodies: Bodies, asked: Asked, say: Callable[[str], None]) -> Figures:
    """Each on a server of its own that has just been started; what breaks is said and left out."""
    found = Figures()
    if not asked.names:
        return found
    ready = install(room, "keyrelay-figures")
    steps: dict[str, Callable[[], object]] = {
        "start": lambda: start.measure(ready, bodies),
        "latency": lambda: latency.measure(ready, bodies, asked.rounds, asked.seconds),
        "slow": lambda: slow.measure(ready, bodies),
        "huge": lambda: huge.measure(ready),
        "kept": lambda: kept.measure(ready, bodies, asked.seconds),
        "neighbour": lambda: neighbour.measure(
            install(room, "keyrelay-neighbour", neighbour.SETTINGS), bodies, asked.seconds
        ),
    }
    for name in asked.names:
        try:
            setattr(found, name, steps[name]())
        except (BrokenError, OSError) as broken:
            say(f"skipped {name}: {broken}; keyrelay said: {said(ready.program)}")
        else:
            say(f"measured {name}: {getattr(found, name)}")
    return found


def sentences(found: Figures) -> list[str]:
    """What the table of goals doesn't say."""
    lines = []
    if at := found.latency:
        lines += [
            f"at {at.rate:,.0f} requests per second (half of what it carries: {at.half:,.0f})",
            f"  directly p50 {at.direct_p50 / 1e3:.2f} ms, p99 {at.direct_p99 / 1e3:.2f} ms",
            f"  through  p50 {at.through_p50 / 1e3:.2f} ms, p99 {at.through_p99 / 1e3:.2f} ms",
        ]
    if body := found.huge:
        lines.append(f"1 GB: {body.down_seconds:.1f} s down, {body.up_seconds:.1f} s up")
    if beside := found.neighbour:
        lines += [
            f"a tenant that calls {beside.times_limit:.0f} times above its limit"
            f" ({beside.refused:.1%} refused) takes another one's",
            f"  p50 from {beside.before_p50 / 1e3:.2f} to {beside.during_p50 / 1e3:.2f} ms",
            f"  p99 from {beside.before_p99 / 1e3:.2f} to {beside.during_p99 / 1e3:.2f} ms",
            "  and none of its calls failed",
        ]
    if misses := found.kept:
        lines.append(f"of {misses.asked:,} misses under load {misses.kept:,} were kept")
    return lines
