"""Knows every key and token of a test, and finds them where none may be: in whatever form."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.sieve import LONG_ENOUGH, Sieve

ROOT = str(Path(__file__).parent.parent.parent)
TOKEN = re.compile(r"kr_[0-9A-Za-z]{12}_[0-9A-Za-z]{38,}")
"""A short-lived one is longer."""
TAIL = 1024
"""So much of what was said before is looked at with what comes next."""


def holds(octets: bytes, *secrets: str) -> list[str]:
    """Those of the secrets that stand there."""
    sieve = Sieve()
    sieve.learn(secrets)
    found = sieve.found(octets)
    return [secret for secret in secrets if secret in found]


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
    lasting: set[str] = field(default_factory=set)
    """Those of tests that are over, and that an engine which still runs may have been told."""
    sieve: Sieve = field(default_factory=Sieve)
    _new: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """A new test; what the last one had is counted."""
        self.tally["secrets"] += len(self.keys | self.tokens)
        self.tally["leaks"] += len(self.leaks)
        for one in (self.keys, self.tokens, self.own_files, self.leaks):
            one.clear()
        self.sieve, self._new = Sieve(), []

    def last(self) -> None:
        """What this test has may come to light later."""
        self.lasting |= self.keys | self.tokens

    def recall(self) -> None:
        """All tests are over: what they had is known once more."""
        self.keys |= self.lasting
        self._new += self.lasting

    def key(self, octets: bytes) -> None:
        """A provider key, or whatever else was taken for a secret."""
        if len(octets) >= LONG_ENOUGH and len(set(octets)) > 4:
            self.keys.add(octets.decode("utf-8", "surrogateescape"))
            self._new.append(octets.decode("utf-8", "surrogateescape"))

    def typed(self, text: str | bytes) -> None:
        """What was given to a command on its standard input."""
        octets = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        for line in octets.split():
            self.key(line)

    def token(self, text: str) -> None:
        self.tokens.add(text)
        self._new.append(text)

    @property
    def secrets(self) -> frozenset[str]:
        """Keys and tokens as they are known now."""
        return frozenset(self.keys | self.tokens)

    def look(
        self,
        where: str,
        octets: bytes,
        *,
        shows_tokens: bool = False,
        among: Iterable[str] | None = None,
    ) -> None:
        """Notes a leak. `shows_tokens`: what issues one shows it, this once. `among`: those that
        may not stand there, if not all."""
        self.tally["words"] += 1
        self.tally["octets"] += len(octets)
        if found := self.found(octets):
            secrets = self.keys | self.tokens if among is None else set(among)
            found &= secrets - self.tokens if shows_tokens else secrets
            self.leaks += [f"{where} holds {one[:6]}...{one[-4:]}" for one in sorted(found)]

    def found(self, octets: bytes) -> set[str]:
        """The secrets that stand there, be it where they may."""
        while self._new:
            self.sieve.learn([self._new.pop()])
        return self.sieve.found(octets)

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


class Pages:
    """Pages of keyrelay's own in this process, whoever asks: none shows what was secret before it
    was asked for. The one that makes a token shows that, this once, and a form shows what was typed
    into it."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        where = f"the answer to {scope['method']} {scope['path'][:24]}"
        typed, tail = b"", b""
        among: frozenset[str] | None = LEDGER.secrets

        async def heard() -> Any:
            nonlocal typed
            message = await receive()
            typed += message.get("body", b"")
            return message

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal tail, among
            values = [text for _, text in message.get("headers", ())]
            if any(text.startswith(b"text/event-stream") for text in values):
                among = None  # it tells of what comes later too
            elif any(text.startswith(b"text/html") for text in values) and among:
                among -= LEDGER.found(typed)
            said = b"\n".join((*values, message.get("body", b"")))
            LEDGER.look(where, tail + said, among=among)
            tail = said[-TAIL:]
            await send(message)

        await self._app(scope, heard, watched)
