"""The register: what each row that matters should be, in pages under one root. Pure.

A row's mark is the SHA-256 of its columns, beside its name on one of the pages. The root is the
SHA-256 of every page; whoever authenticates that authenticates all rows: none can be changed, put
back, taken out or exchanged unseen, and a change of one row costs one page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
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


class Entry(NamedTuple):
    """A row's name and its mark."""

    name: str
    mark: bytes


def entry_of(table: str, columns: Mapping[str, object]) -> Entry:
    """A row as the register has it. Columns without a value don't count, so that a release can add
    some."""
    name = name_of(table, *(columns[column] for column in _OWNED_BY[table]))
    there = ((column, columns[column]) for column in sorted(columns))
    octets = ascii((table, *((name, _plain(value)) for name, value in there if value is not None)))
    return Entry(name, sha256(octets.encode()).digest())


def _plain(value: object) -> object:
    # SQLite gives a whole number now as the one type, now as the other.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def name_of(table: str, *words: object) -> str:
    """The name of a row; unlike that of every other row."""
    return json.dumps([table, *words], default=repr)


def words_of(name: str) -> list[str]:
    """What a name is made of: its table, then the words that name the row."""
    return [str(word) for word in json.loads(name)]


Page = Mapping[str, bytes]


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

    def named(self, *words: str) -> Iterator[str]:
        """The names that begin with these words, on every page that can be read."""
        begin = json.dumps(words)[:-1] + ","
        there = (page for page in self.pages if page is not None)
        return (name for page in there for name in page if name.startswith(begin))

    def with_rows(self, rows: Mapping[str, bytes | None]) -> tuple[Register, dict[int, bytes]]:
        """The register with other marks (None: the row is gone), and the pages to write.

        Raises Unopenable where one of these pages is not as it was written.
        """
        pages: dict[int, dict[str, bytes]] = {}
        for name, mark in rows.items():
            number = page_of(name)
            page = pages.setdefault(number, dict(self._sound(number)))
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
    tuple(mark_of_page(number, b"") for number in range(PAGES)), tuple({} for _ in range(PAGES))
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
    page, at = {}, 0
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
