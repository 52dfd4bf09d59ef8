"""Knows every key and token of a test, and finds them where none may be: in whatever form."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = str(Path(__file__).parent.parent.parent)
TOKEN = re.compile(r"kr_[0-9A-Za-z]{12}_[0-9A-Za-z]{38,}")
"""A short-lived one is longer."""
LONG_ENOUGH = 16
"""What is shorter is no secret that a test could find again."""
IN_HALVES = 40
"""From this length on a half is found too: what was cut somewhere."""


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
    """The whole, and its halves where they tell it."""
    yield secret
    if len(secret) >= IN_HALVES:
        middle = len(secret) // 2
        yield secret[:middle]
        yield secret[middle:]


def holds(octets: bytes, *secrets: str) -> list[str]:
    """Those of the secrets that stand there."""
    return [secret for secret in secrets if any(form in octets for form in sought(secret))]


@lru_cache(maxsize=1024)
def sought(secret: str) -> tuple[bytes, ...]:
    """All that is looked for: every answer of a test may be looked at."""
    return tuple({form for piece in pieces(secret) for form in forms(piece)})


def files(data: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(data.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path, path.read_bytes()


@dataclass
class Ledger:
    """The secrets of the running test, and the files that it wrote itself."""

    keys: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    own_files: set[str] = field(default_factory=set)
    leaks: list[str] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)
    """Over all tests: `secrets` looked for, `files` and `words` (output, log) looked at, octets."""

    def begin(self) -> None:
        """A new test; what the last one had is counted."""
        self.tally["secrets"] += len(self.keys | self.tokens)
        self.tally["leaks"] += len(self.leaks)
        for one in (self.keys, self.tokens, self.own_files, self.leaks):
            one.clear()

    def key(self, octets: bytes) -> None:
        """A provider key, or whatever else was taken for a secret."""
        if len(octets) >= LONG_ENOUGH and len(set(octets)) > 4:
            self.keys.add(octets.decode("utf-8", "surrogateescape"))

    def typed(self, text: str | bytes) -> None:
        """What was given to a command on its standard input."""
        octets = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        for line in octets.split():
            self.key(line)

    def token(self, text: str) -> None:
        self.tokens.add(text)

    def look(self, where: str, octets: bytes, *, shows_tokens: bool = False) -> None:
        """Notes a leak. `shows_tokens`: what issues one shows it, this once."""
        secrets = self.keys if shows_tokens else self.keys | self.tokens
        self.tally["words"] += 1
        self.tally["octets"] += len(octets)
        self.leaks += [f"{where} holds {one[:6]}...{one[-4:]}" for one in holds(octets, *secrets)]

    def look_at_files(self, folder: Path) -> None:
        """Every file that the test did not write itself."""
        for path, octets in files(folder):
            if str(path) not in self.own_files:
                self.tally.update(files=1, words=-1)
                self.look(str(path.relative_to(folder)), octets)

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        """For sys.addaudithook: which files a test writes (a database is the project's)."""
        if event != "open" or not isinstance(args[0], str) or ".db" in args[0]:
            return
        mode, flags = args[1], args[2]
        if isinstance(flags, int) and not flags & 3 and not set(mode or "") & set("wax+"):
            return
        frame = sys._getframe(1)
        while frame.f_back and not _of_project(frame.f_code.co_filename):
            frame = frame.f_back
        if frame.f_code.co_filename.startswith(f"{ROOT}/tests/"):
            self.own_files.add(args[0])


def _of_project(name: str) -> bool:
    return name.startswith(ROOT) and "/.venv/" not in name and name != __file__


LEDGER = Ledger()
"""One for the process: Secrets are made everywhere."""


def wrap(kind: type, name: str, note: Any) -> None:
    """Lets an initialiser tell what it was given."""
    usual = getattr(kind, name)

    def told(self: Any, *args: Any, **kwargs: Any) -> None:
        usual(self, *args, **kwargs)
        note(self)

    setattr(kind, name, told)


def wrap_maker(place: Any, name: str, note: Any) -> None:
    """Lets a function tell what it made."""
    usual = getattr(place, name)

    def told(*args: Any, **kwargs: Any) -> Any:
        made = usual(*args, **kwargs)
        note(made)
        return made

    setattr(place, name, told)


def begin() -> Ledger:
    """From now on every Secret and every new token of this process is known."""
    from vault import shortlived  # noqa: PLC0415
    from vault.secret import Secret, octets_of  # noqa: PLC0415
    from vault.tokens import Minted  # noqa: PLC0415

    wrap(Secret, "__init__", lambda one: LEDGER.key(octets_of(one)))
    wrap(Minted, "__init__", lambda one: LEDGER.token(one.text))
    wrap_maker(shortlived, "_sealed", lambda text: LEDGER.token(text.decode()))
    sys.addaudithook(LEDGER.hook)
    return LEDGER


def told(words: Iterable[object]) -> bytes:
    """Many things as the octets to look at."""
    return "\n".join(map(str, words)).encode("utf-8", "surrogateescape")
