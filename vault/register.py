"""The register: what each row that matters should be, in pages under one root. Pure.

A row's mark is the SHA-256 of its columns, beside its name on one of the pages. The root is the
SHA-256 of every page; whoever authenticates that authenticates all rows: none can be changed, put
back, taken out or exchanged unseen, and a change of one row costs one page.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from typing import Final, NamedTuple

from vault.errors import Unopenable
from vault.sealing import encode

PAGES: Final = 256
_LENGTH: Final = 32
_OWNED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "keys": ("tenant", "service", "alias"),
    "key_versions": ("tenant", "service", "alias", "version"),
    "tokens": ("tenant", "id"),
    "backends": ("tenant", "id"),
    "purges": ("tenant", "service"),
    "data_keys": ("purpose", "id"),
}
"""The tables that the register keeps, and what names a row of each, its owner first."""

TABLES: Final = tuple(_OWNED_BY)
_encoded: Final = json.JSONEncoder(default=repr).encode
_BEHIND: Final = "\x7f"  # every name goes on with a character before it


class Entry(NamedTuple):
    """A row's name and its mark."""

    name: str
    mark: bytes


def entry_of(table: str, columns: Mapping[str, object]) -> Entry:
    """A row as the register has it. Columns without a value don't count, so that a release can add
    some."""
    name = name_of(table, *(columns[column] for column in _OWNED_BY[table]))
    # SQLite gives a whole number now as the one type, now as the other.
    there = [
        (column, int(value) if isinstance(value, float) and value.is_integer() else value)
        for column, value in sorted(columns.items())  # by the columns: no two are alike
        if value is not None
    ]
    return Entry(name, sha256(ascii((table, *there)).encode()).digest())


def name_of(table: str, *words: object) -> str:
    """The name of a row; unlike that of every other row."""
    return _encoded([table, *words])


def words_of(name: str) -> list[str]:
    """What a name is made of: its table, then the words that name the row."""
    return [str(word) for word in json.loads(name)]


class Page(dict[str, bytes]):
    """Marks by names; never changed once it stands in a register, and their order so neither."""

    __slots__ = ("_ordered",)
    _ordered: list[str]

    def names(self, table: str, owner: str | None) -> Sequence[str]:
        """The names of a table, of one owner or of all."""
        try:
            ordered = self._ordered
        except AttributeError:
            ordered = self._ordered = sorted(self)
        begin = name_of(table, *(() if owner is None else (owner,)))[:-1] + ", "
        return ordered[bisect_left(ordered, begin) : bisect_left(ordered, begin + _BEHIND)]


@dataclass(frozen=True, slots=True)
class Register:
    """All pages. None in the place of one that is not as it was written."""

    marks: tuple[bytes, ...]
    pages: tuple[Page | None, ...]

    @property
    def root(self) -> bytes:
        """What stands for all of it."""
        return b"".join(self.marks)

    def knows(self, entry: Entry) -> bool:
        """Whether a row is exactly as it was written last."""
        page = self.pages[page_of(entry.name)]
        return page is not None and page.get(entry.name) == entry.mark

    def named(self, table: str, owner: str | None = None) -> Iterator[str]:
        """The names of a table, of one owner or of all, on every page that can be read."""
        there = (page for page in self.pages if page is not None)
        return chain.from_iterable(page.names(table, owner) for page in there)

    def with_rows(self, rows: Mapping[str, bytes | None]) -> tuple[Register, dict[int, bytes]]:
        """The register with other marks (None: the row is gone), and the pages to write.

        Raises Unopenable where one of these pages is not as it was written.
        """
        pages: dict[int, Page] = {}
        for name, mark in rows.items():
            number = page_of(name)
            if number not in pages:
                pages[number] = Page(self._sound(number))
            page = pages[number]
            if mark is None:
                page.pop(name, None)
            else:
                page[name] = mark
        octets = {number: _octets_of(page) for number, page in pages.items()}
        marks, all_pages = list(self.marks), list(self.pages)
        for number, page in pages.items():
            marks[number], all_pages[number] = mark_of_page(number, octets[number]), page
        return Register(tuple(marks), tuple(all_pages)), octets

    def _sound(self, number: int) -> Page:
        page = self.pages[number]
        if page is None:
            raise Unopenable(
                f"page {number} of the vault's register was changed or replayed by somebody who "
                "does not have its master key; restore the database from a backup, or take it as "
                "it is with: keyrelay serve --accept-rollback"
            )
        return page


def page_of(name: str) -> int:
    """On which page a name stands."""
    return sha256(name.encode()).digest()[0]


def mark_of_page(number: int, octets: bytes) -> bytes:
    """What stands for a page in the root."""
    return sha256(encode("keyrelay page 1", number, octets)).digest()


EMPTY: Final = Register(
    tuple(mark_of_page(number, b"") for number in range(PAGES)), tuple(Page() for _ in range(PAGES))
)
"""The register of no rows."""


def marks_in(root: bytes) -> tuple[bytes, ...]:
    """The marks of all pages."""
    return tuple(root[at : at + _LENGTH] for at in range(0, PAGES * _LENGTH, _LENGTH))


def is_root(found: object) -> bool:
    """Whether it can be a root at all."""
    return isinstance(found, bytes) and len(found) == PAGES * _LENGTH


def page_in(octets: bytes) -> Page:
    """A page from what `with_rows` made of it."""
    page, at = Page(), 0
    while at < len(octets):
        start = at + 2
        end = start + int.from_bytes(octets[at:start], "big")
        at = end + _LENGTH
        page[octets[start:end].decode()] = octets[end:at]
    return page


def _octets_of(page: Page) -> bytes:
    return b"".join(
        len(octets := name.encode()).to_bytes(2, "big") + octets + page[name]
        for name in sorted(page)
    )
