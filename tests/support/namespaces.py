"""A network of a test's own, with one machine in it whose cable can be pulled. Needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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
    here, there = (
        f"krn{number}",
        Apart(f"krn{number}", f"10.213.{number // 63}.{number % 63 * 4 + 2}"),
    )
    outside = f"10.213.{number // 63}.{number % 63 * 4 + 1}"
    _ip("netns", "add", there.name)
    try:
        _ip("link", "add", here, "type", "veth", "peer", "name", "inside", "netns", there.name)
        _ip("addr", "add", f"{outside}/30", "dev", here)
        _ip("link", "set", here, "up")
        _ip("-n", there.name, "addr", "add", f"{there.address}/30", "dev", "inside")
        for device in ("lo", "inside"):
            _ip("-n", there.name, "link", "set", device, "up")
        yield there
    finally:
        _ip("netns", "del", there.name)  # with its end of the cable, and so the other one


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
