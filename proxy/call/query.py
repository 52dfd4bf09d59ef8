"""A raw query to what steers the call, what is the target's, and the path glued behind. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

from proxy import uris
from proxy.call.heads import (
    begins_tail,
    decode,
    read_cache,
    read_invalidate,
    read_server,
    read_service,
    split_encoded,
)
from proxy.call.shapes import ServiceNames
from proxy.errors import BadCall

CONTROLS = frozenset({"server", "service", "cache", "invalidate"})
OPTIONS = frozenset({"cache", "invalidate"})

_BARE = r"invalidate(?:[=&?/]|%2[Ff]|\Z)"
_CUTS = {
    CONTROLS: re.compile(rf"&|\?(?=(?:server|service|cache)(?:[=&?]|\Z)|{_BARE})"),
    OPTIONS: re.compile(rf"&|\?(?=cache(?:[=&?]|\Z)|{_BARE})"),
}
_SERVER = re.compile(r"(?:\A|[&?])server(?:[=&?]|\Z)")
_GLUED_PATH = re.compile(r"[/?]|%2F|%3F", re.IGNORECASE)
_END_OF_PATH = re.compile(r"[&?]")


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read a query.

    `names`: the parameters that steer here. `letters`: whether a tail may begin with a letter, as
    below `/proxy/` exactly.
    """

    services: ServiceNames
    names: frozenset[str]
    letters: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A query taken apart.

    `server` is decoded, `service` canonical. `tail`: the path behind the query, `""` where it was
    one slash before a `?`, None where there was none. `parameters`: the target's, joined by `&`.
    """

    server: str | None = None
    service: str | None = None
    cache: int | None = None
    invalidate: bool = False
    tail: str | None = None
    parameters: str = ""


def names_server(query: str) -> bool:
    """Whether a `server` stands in this query, wherever."""
    return _SERVER.search(query) is not None


def read_query(query: str, reading: Reading) -> Query:
    """Take a raw query apart. Raises BadCall and UnknownService."""
    return _Reader(query, reading).read()


class _Piece(NamedTuple):
    """One parameter: where it begins and ends; if it steers, its name and where its value is."""

    start: int
    end: int
    name: str | None
    value: int
    bare: bool


class _Found(TypedDict, total=False):
    server: str
    service: str
    cache: int
    invalidate: bool


class _Reader:
    """One reading of one query, from left to right, up to the first tail."""

    def __init__(self, query: str, reading: Reading) -> None:
        self._query = query
        self._reading = reading
        self._pieces = [self._piece(start, end) for start, end in self._spans()]
        self._found: _Found = {}
        self._kept: list[str] = []
        self._copied: frozenset[str] = frozenset()
        self._tail: str | None = None

    def read(self) -> Query:
        for index, piece in enumerate(self._pieces):
            if piece.name is None:
                self._keep(self._query[piece.start : piece.end])
            elif self._steer(index, piece, piece.name):
                break
        parameters = "&".join(filter(None, self._kept))
        return Query(**self._found, tail=self._tail, parameters=parameters)

    def _spans(self) -> Iterator[tuple[int, int]]:
        start = 0
        for cut in _CUTS[self._reading.names].finditer(self._query):
            yield start, cut.start()
            start = cut.end()
        yield start, len(self._query)

    def _piece(self, start: int, end: int) -> _Piece:
        text = self._query[start:end]
        name, equals, _ = text.partition("=")
        if name in self._reading.names:
            return _Piece(start, end, name, start + len(name + equals), not equals)
        if self._is_flag_with_tail(text):
            return _Piece(start, end, "invalidate", start + len("invalidate"), True)
        return _Piece(start, end, None, end, False)

    def _is_flag_with_tail(self, text: str) -> bool:
        """Whether this is `invalidate` and a glued path, not a parameter like `invalidated`."""
        rest = text.removeprefix("invalidate")
        if rest == text or not (rest[:1] == "?" or begins_tail(rest, self._reading.letters)):
            return False
        before, _, value = rest.partition("=")
        return not value or _GLUED_PATH.search(before) is not None

    def _keep(self, parameter: str) -> None:
        if parameter not in self._copied:
            self._kept.append(parameter)

    def _steer(self, index: int, piece: _Piece, name: str) -> bool:
        """Take the piece's value; True when a tail follows: behind it nothing steers."""
        if name in self._found:
            raise BadCall(f"{name} stands in the query twice: write it once.", param=name)
        if not self._found and self._query[piece.start - 1 : piece.start] == "?":
            # A client put its parameters before our query; one that rebuilds appends them again.
            self._copied = frozenset(self._kept)
        text, letters = self._query[piece.value : piece.end], self._reading.letters
        if name == "cache":
            self._found["cache"], rest = read_cache(text, letters)
        elif name == "invalidate":
            self._found["invalidate"], rest = read_invalidate(text, letters, bare=piece.bare)
        elif name == "service":
            self._found["service"], rest = read_service(text, self._reading.services, letters)
        else:
            last = all(later.name is None for later in self._pieces[index + 1 :])
            self._found["server"], rest = self._server(text, last)
        return bool(rest) and self._take_tail(piece.end - len(rest), piece.bare)

    def _server(self, text: str, last: bool) -> tuple[str, str]:
        if text and last and self._reading.letters:
            raise BadCall(
                "Behind /proxy/ nobody can tell where server ends and a glued path begins:"
                " put server first and another parameter behind it, or write /proxy?server=...",
                param="server",
            )
        value, rest = split_encoded(text) if last else (text, "")
        return read_server(value), rest

    def _take_tail(self, start: int, bare: bool) -> bool:
        match = _END_OF_PATH.search(self._query, start)
        end = match.start() if match else len(self._query)
        path = self._query[start:end]
        if bare:
            path = path.removesuffix("=")
        if path in ("/", "%2F", "%2f") and self._query[end : end + 1] != "?":
            return False
        path, own = _read_path(path)
        self._tail = "" if path == "/" else path
        self._copied = frozenset()
        self._kept += [own, self._query[end + 1 :]]
        return True


def _read_path(path: str) -> tuple[str, str]:
    """The path of a tail and the query within it. A client that encoded it is decoded once."""
    if path[0] == "/" or ("/" in path and path[0] != "%") or "%2F" not in path.upper():
        return path, ""
    path, _, query = uris.encode(decode(path)).partition("?")
    return path, query
