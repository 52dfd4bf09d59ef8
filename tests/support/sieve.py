"""Finds any of many secrets in many octets, in whatever form: each form is known by a few windows
of it, and octets are looked at in steps that step over no such window."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

LONG_ENOUGH = 16
"""What is shorter is no secret that a test could find again."""
IN_HALVES = 40
"""From this length on it is found by a half too: what was cut somewhere."""
WINDOW = 11
STEP = 4
RUN = re.compile(rb"[^\x00-\x20\x7f]{%d,}" % (WINDOW + STEP - 1))
"""Octets in which a form may lie: no white space, nothing that controls."""


def forms(secret: str) -> Iterator[bytes]:
    """The ways in which a secret may stand somewhere without being plain to see."""
    octets = secret.encode("utf-8", "surrogateescape")
    yield octets
    yield octets.hex().encode()
    yield octets.hex().upper().encode()
    quoted = quote(octets, safe="")
    yield quoted.encode()
    yield re.sub("%..", lambda found: found[0].lower(), quoted).encode()
    yield json.dumps(octets.decode("utf-8", "replace"))[1:-1].encode()
    yield json.dumps(octets.decode("utf-8", "replace"))[1:-1].replace("/", "\\/").encode()
    for before in (b"", b"x", b"xx"):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(before + octets)
            yield whole[4 : len(whole) - 4]


def pieces(secret: str) -> Iterator[str]:
    """Both halves where they tell it: one stands wherever the whole does."""
    if len(secret) < IN_HALVES:
        yield secret
        return
    middle = len(secret) // 2
    yield secret[:middle]
    yield secret[middle:]


class Sieve:
    """The secrets that it has learnt."""

    def __init__(self) -> None:
        self._learnt: set[str] = set()
        self._by_window: dict[bytes, list[tuple[bytes, str]]] = {}
        self._short: list[tuple[bytes, str]] = []

    def learn(self, secrets: Iterable[str]) -> None:
        """Finds these too from now on."""
        for secret in secrets:
            if secret not in self._learnt:
                self._learnt.add(secret)
                for form in {form for piece in pieces(secret) for form in forms(piece)}:
                    self._note(form, secret)

    def _note(self, form: bytes, secret: str) -> None:
        run = max(RUN.findall(form), key=len, default=b"")
        if not run:
            self._short.append((form, secret))
        for start in range(min(STEP, len(run))):
            window = run[start : start + WINDOW]
            self._by_window.setdefault(window, []).append((form, secret))

    def found(self, octets: bytes) -> set[str]:
        """Those of the secrets that stand there."""
        windows = {
            run[at : at + WINDOW]
            for run in RUN.findall(octets)
            for at in range(0, len(run) - WINDOW + 1, STEP)
        }
        known = self._by_window
        suspects = [one for window in windows & known.keys() for one in known[window]]
        return {secret for form, secret in {*suspects, *self._short} if form in octets}
