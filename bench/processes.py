"""What the kernel says of a process and all that it started: CPU seconds, resident memory."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Stat:
    """One line of /proc/PID/stat (proc(5)): CPU in ticks, memory in octets."""

    pid: int
    parent: int
    ticks: int
    resident: int


def parse_stat(line: str) -> Stat:
    """Reads the line; the command's name may hold spaces and brackets, so it is cut off first."""
    pid, _, rest = line.partition(" (")
    fields = rest.rpartition(") ")[2].split()
    return Stat(int(pid), int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[21]) * PAGE)


def descendants(root: int, stats: dict[int, Stat]) -> list[Stat]:
    """A process and all below it."""
    family = {root}
    grown = True
    while grown:
        below = {one.pid for one in stats.values() if one.parent in family} - family
        grown = bool(below)
        family |= below
    return [stats[pid] for pid in family if pid in stats]


def tree(root: int) -> list[Stat]:
    """A living process and its descendants."""
    stats: dict[int, Stat] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                one = parse_stat((entry / "stat").read_text())
                stats[one.pid] = one
    return descendants(root, stats)


def cpu_seconds(root: int) -> float:
    """User and system time of the tree so far; in steps of a tick (10 ms)."""
    return sum(one.ticks for one in tree(root)) / TICKS


def with_ended(root: int) -> float:
    """The same with children that it has seen end: a connection of PostgreSQL is one."""
    fields = Path(f"/proc/{root}/stat").read_text().rpartition(") ")[2].split()
    return cpu_seconds(root) + (int(fields[13]) + int(fields[14])) / TICKS


def resident(root: int) -> int:
    """Octets of the tree that are in memory; pages that processes share count for each."""
    return sum(one.resident for one in tree(root))


def forget_peak(pid: int) -> None:
    """Lets the kernel count the peak anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak(pid: int) -> int:
    """The most octets that the process had in memory since `forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError("the kernel tells no peak of a process that has ended")
