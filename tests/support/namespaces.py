"""A network of a test's own, with one machine in it whose cable can be pulled. Needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count

import pytest

from tests.support.programs import need

_numbers = count(1)


@dataclass(frozen=True)
class Apart:
    """A network namespace, reached at `address` from here and from nowhere else."""

    name: str
    address: str

    @property
    def enter(self) -> list[str]:
        """What stands before a command that is to run there."""
        return ["ip", "netns", "exec", self.name]

    def cut(self) -> None:
        """Whatever is sent is lost, and nobody is told."""
        _ip("-n", self.name, "link", "set", "inside", "down")

    def mend(self) -> None:
        """As before."""
        _ip("-n", self.name, "link", "set", "inside", "up")


@contextmanager
def apart() -> Iterator[Apart]:
    """Another one each time; skips where it can't be made."""
    need("ip")
    if os.geteuid() != 0:
        pytest.skip("root")
    number = (os.getpid() * 7 + next(_numbers)) % 16000
    name, net, first = f"krn{number}", f"10.213.{number // 63}", number % 63 * 4 + 1
    there = Apart(name, f"{net}.{first + 1}")
    try:
        try:
            _lay(there, f"{net}.{first}")
        except subprocess.CalledProcessError:  # a container may have it refused, to root too
            pytest.skip("namespaces")
        yield there
    finally:
        with suppress(subprocess.CalledProcessError):  # with its end of the cable, and so the other
            _ip("netns", "del", name)


@dataclass(frozen=True)
class Sought:
    """A network apart, or the word for why there is none."""

    place: Apart | None
    lacks: str = ""

    def require(self) -> Apart:
        """It; skips where there is none."""
        if self.place is None:
            pytest.skip(self.lacks)
        return self.place


@contextmanager
def apart_if_possible() -> Iterator[Sought]:
    """For a test that has more to do than to pull a cable."""
    with ExitStack() as stack:
        try:
            sought = Sought(stack.enter_context(apart()))
        except pytest.skip.Exception as skipped:
            sought = Sought(None, str(skipped))
        yield sought


def _lay(there: Apart, outside: str) -> None:
    """The namespace, and a cable to it: its other end has the name of the namespace here."""
    name = there.name
    _ip("netns", "add", name)
    _ip("link", "add", name, "type", "veth", "peer", "name", "inside", "netns", name)
    _ip("addr", "add", f"{outside}/30", "dev", name)
    _ip("link", "set", name, "up")
    _ip("-n", name, "addr", "add", f"{there.address}/30", "dev", "inside")
    for device in ("lo", "inside"):
        _ip("-n", name, "link", "set", device, "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
