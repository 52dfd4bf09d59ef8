"""What the writing thread does with rows: whole batches in, whole batches out, and their count.

A thread that waits for SQLite gives way to the event loop and has to get its turn again, statement
by statement; so a batch is a few statements, however many answers it holds.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from proxy.cache.batches import Waiting
from proxy.cache.entry import Entry
from proxy.cache.key import Select
from proxy.cache.pins import Pins
from proxy.cache.policy import CacheSettings
from proxy.cache.presence import Presence
from proxy.cache.purges import Purges
from proxy.cache.row import COMMON, Row
from proxy.cache.schema import COMPLETE, WRITING
from proxy.clock import Clock
from vault import Purge, Sealer

TOUCHES = 4096
"""Uses that are noted in memory until they are written; at half of it they are."""

BATCH = 256
"""Rows that are removed in one transaction, so that none takes long."""

STEP = 1024
"""Rows that a purge looks at in one transaction: some 20 ms, if all of them go."""

MUCH = 4 << 20
"""Octets after which that is enough, however few rows they were."""

PAGES = 1024
"""Free pages that are given back to the file system in one transaction."""

TOO_MANY = 1 << 16
"""Free pages beyond which fewer are given back in one transaction, the more there are: SQLite looks
through all of them for each."""

Doomed = tuple[int, str, int, bytes]
"""What is known of a row that goes: number, tenant, cost and key."""

ENTRIES = f"INSERT INTO entries (id, state, used_at, cost, head, {', '.join(COMMON)}) VALUES "  # noqa: S608
ENTRY = f"({', '.join('?' * (5 + len(COMMON)))})"
CHUNKS = "INSERT INTO chunks VALUES "
NEXT = (
    "SELECT id, tenant, cost, key, service, requested_at FROM entries"  # noqa: S608
    f" WHERE id > ? AND state = 1 ORDER BY id LIMIT {STEP}"
)
TOUCH = (
    "WITH used (key, at) AS (VALUES {}) UPDATE entries SET used_at = used.at"
    " FROM used WHERE entries.key = used.key AND state = 1"
)


class Writer:
    """Changes rows within transactions; each ends with `settle` or with `forget`."""

    def __init__(self, sealer: Sealer, clock: Clock, settings: CacheSettings, pins: Pins) -> None:
        self.presence = Presence()
        self.evicted = 0  # rows that had to make room
        self._sealer = sealer
        self._clock = clock
        self._settings = settings
        self._pins = pins
        self._purges = Purges()
        self._used: Counter[str] | None = None  # octets by tenant; None: count again
        self._last: int | None = None  # the highest number of a row ever; None: ask
        self._gone: list[bytes] = []  # keys of the rows that this transaction removes
        self._touched: dict[bytes, float] = {}

    # The life of a file and of a transaction.

    def opened(self, connection: sqlite3.Connection) -> None:
        """A file was opened: nothing is known of it yet but what is read here."""
        self._used = self._last = None
        with contextlib.suppress(sqlite3.Error):  # whoever meets the damage tells
            rows = connection.execute("SELECT key FROM entries")
            self.presence.count(row[0] for row in rows)

    def settle(self) -> None:
        """The transaction is written."""
        for key in self._gone:
            self.presence.discard(key)
        self._gone.clear()

    def forget(self) -> None:
        """The transaction came to nothing."""
        self._used = None
        self._gone.clear()

    # Uses.

    def touch(self, key: bytes, now: float) -> None:
        """Notes that entries of this key were used; any thread may call it."""
        if key in self._touched or len(self._touched) < TOUCHES:
            self._touched[key] = now

    def note_uses(self, connection: sqlite3.Connection) -> None:
        """Writes the uses down."""
        touched, self._touched = self._touched, {}
        uses = list(touched.items())  # the loop may still add to it
        for start in range(0, len(uses), BATCH):
            batch = uses[start : start + BATCH]
            values = [value for use in batch for value in use]
            connection.execute(TOUCH.format(_times(len(batch), "(?, ?)")), values)

    # In.

    def insert(self, batch: Sequence[Waiting], connection: sqlite3.Connection) -> None:
        """Keeps small answers, each in place of those that would have answered its request."""
        for group in _without_repeats(batch):
            self._insert([one for one in group if not self._is_purged(one.entry)], connection)
        self._make_room(sum(one.entry.cost for one in batch), connection)

    def _insert(self, group: Sequence[Waiting], connection: sqlite3.Connection) -> None:
        if not group:
            return
        self._replace({one.entry.key: one.select for one in group}, connection)
        first, now = self._number(len(group), connection), self._clock.now()
        entries: list[object] = []
        chunks: list[object] = []
        for number, one in enumerate(group, first):
            row = Row.of(number, one.entry)
            head = row.seal_head(one.entry, self._sealer)
            entries += (number, COMPLETE, now, one.entry.cost, head, *row.common)
            if one.octets:
                chunks += (number, 0, row.seal_chunk(0, one.octets, self._sealer))
        self._count_in((one.entry for one in group), connection)
        connection.execute(ENTRIES + _times(len(group), ENTRY), entries)
        if chunks:
            connection.execute(CHUNKS + _times(len(chunks) // 3, "(?, ?, ?)"), chunks)

    def begin(self, entry: Entry, connection: sqlite3.Connection) -> Row:
        """A row for a large answer, not to be seen yet."""
        row = Row.of(self._number(1, connection), entry)
        values = (row.id, WRITING, self._clock.now(), entry.cost, b"", *row.common)
        connection.execute(ENTRIES + ENTRY, values)
        return row

    def add_chunk(
        self, row: Row, number: int, octets: bytes, connection: sqlite3.Connection
    ) -> None:
        """The next piece of a large answer."""
        sealed = row.seal_chunk(number, octets, self._sealer)
        connection.execute(CHUNKS + "(?, ?, ?)", (row.id, number, sealed))

    def complete(
        self, row: Row, entry: Entry, select: Select, connection: sqlite3.Connection
    ) -> None:
        """A large answer is whole: it takes the place of others."""
        if self._is_purged(entry):
            delete([row.id], connection)
            return
        self._replace({entry.key: select}, connection)
        self._count_in((entry,), connection)
        head = row.seal_head(entry, self._sealer)
        connection.execute("UPDATE entries SET state = 1, head = ? WHERE id = ?", (head, row.id))
        self._make_room(entry.cost, connection)

    def _replace(self, selects: dict[bytes, Select], connection: sqlite3.Connection) -> None:
        keys = [key for key in selects if self.presence.may_hold(key)]
        rows = (
            connection.execute(
                "SELECT id, key, vary, variant FROM entries"  # noqa: S608
                f" WHERE state = 1 AND key IN ({_times(len(keys), '?')})",
                keys,
            ).fetchall()
            if keys
            else ()
        )
        self.remove([row[0] for row in rows if selects[row[1]](row[2]) == row[3]], connection)

    def _number(self, count: int, connection: sqlite3.Connection) -> int:
        """The first of so many numbers that no row has ever had."""
        if self._last is None:
            query = "SELECT ifnull(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'entries'"
            self._last = int(connection.execute(query).fetchone()[0])
        first = self._last + 1
        self._last += count
        return first

    # Out.

    def purge(self, purge: Purge) -> None:
        """From now on nothing is kept that a purge covers; what is there is for the caller."""
        self._purges.add(purge)

    def _is_purged(self, entry: Entry) -> bool:
        return self._purges.cover(entry.tenant, entry.service, entry.requested_at)

    def remove_covered(
        self, purges: Purges, after: int, connection: sqlite3.Connection
    ) -> int | None:
        """Removes what purges end among the next rows; which row was the last one, or None behind
        all."""
        now, rows = self._clock.now(), connection.execute(NEXT, (after,)).fetchall()
        ends = [purges.end(row[1], row[4], row[5], now) for row in rows]
        enough = _enough(row[2] * end for row, end in zip(rows, ends, strict=True))
        going = (row[:4] for row, end in zip(rows[:enough], ends, strict=False) if end)
        self._remove(list(going), connection)
        self.shrink(connection)
        return rows[enough - 1][0] if enough == STEP or enough < len(rows) else None

    def remove_over(self, now: float, connection: sqlite3.Connection) -> bool:
        """Removes some of what is over; whether there may be more."""
        query = (
            "SELECT id, tenant, cost, key FROM entries WHERE state = 1 AND expires_at <= ?"  # noqa: S608
            f" LIMIT {BATCH}"
        )
        rows = connection.execute(query, (now,)).fetchall()
        enough = _enough(row[2] for row in rows)
        self._remove(rows[:enough], connection)
        self.shrink(connection)
        return enough == BATCH or enough < len(rows)

    def shrink(self, connection: sqlite3.Connection) -> int:
        """Gives free pages back to the file system; how many more it could."""
        self._bury(connection)
        free = _free_pages(connection)
        pages = PAGES if free <= TOO_MANY else PAGES // 8 * TOO_MANY // free
        for _ in range(min(max(1, pages), free)):
            connection.execute("PRAGMA incremental_vacuum(1)")  # Python takes one step of it
        return _free_pages(connection)

    def remove(self, numbers: Sequence[int], connection: sqlite3.Connection) -> None:
        """Removes rows; those that are being read disappear from look-ups and go later."""
        if not numbers:
            return
        asked = _times(len(numbers), "?")
        rows = connection.execute(
            f"SELECT id, tenant, cost, key FROM entries WHERE state = 1 AND id IN ({asked})",  # noqa: S608
            numbers,
        )
        self._remove(rows.fetchall(), connection)

    def _remove(self, rows: Sequence[Doomed], connection: sqlite3.Connection) -> None:
        used = self._count(connection)
        for _number, tenant, cost, key in rows:
            used[tenant] -= cost
            self._gone.append(key)
        doomed = [row[0] for row in rows if self._pins.doom(row[0])]
        if doomed:
            query = f"UPDATE entries SET state = 2 WHERE id IN ({_times(len(doomed), '?')})"  # noqa: S608
            connection.execute(query, doomed)
        gone = set(doomed)
        delete([row[0] for row in rows if row[0] not in gone], connection)

    def _bury(self, connection: sqlite3.Connection) -> None:
        for number in self._pins.released():
            connection.execute("DELETE FROM entries WHERE id = ? AND state = 2", (number,))

    def remove_surplus(self, connection: sqlite3.Connection) -> bool:
        """Removes some of what is beyond a limit that is lower than it was; whether there is more.
        For what comes there is room already."""
        is_more = self._evict(MUCH, connection)
        self.shrink(connection)
        return is_more

    def _make_room(self, added: int, connection: sqlite3.Connection) -> None:
        """Removes what is beyond the limits: more than was added, but not all at once."""
        self._bury(connection)
        if len(self._touched) >= TOUCHES // 2:
            self.note_uses(connection)
        self._evict(added + MUCH, connection)

    def _evict(self, most: int, connection: sqlite3.Connection) -> bool:
        """Removes the longest unused entries of the tenant that holds the most, or too much, until
        it is so many octets; whether there is still too much."""
        while (tenant := self._too_large(connection)) is not None:
            if most <= 0:
                return True
            self.note_uses(connection)
            before, oldest = self._count(connection).total(), self._oldest(tenant, most, connection)
            if not oldest:  # somebody else has removed rows
                self._used = None
                break
            self.evicted += len(oldest)
            self.remove(oldest, connection)
            most -= before - self._count(connection).total()
        return False

    def _too_large(self, connection: sqlite3.Connection) -> str | None:
        used = self._count(connection)
        for tenant, octets in used.most_common(1):
            if octets > self._settings.quota or used.total() > self._settings.disk_bytes:
                return tenant
        return None

    def _oldest(self, tenant: str, most: int, connection: sqlite3.Connection) -> list[int]:
        """As many as must go, but no more than leave the tenant as large as the next, or than are
        so many octets."""
        used, settings = self._count(connection), self._settings
        held = used[tenant]
        surplus = max(held - settings.quota, used.total() - settings.disk_bytes)
        others = (octets for other, octets in used.items() if other != tenant)
        least = held - min(surplus, most, max(1, held - max(others, default=0)))
        rows = connection.execute(
            "SELECT id, cost FROM entries WHERE tenant = ? AND state = 1"
            " ORDER BY used_at, id LIMIT ?",
            (tenant, BATCH),
        )
        oldest = []
        for number, cost in rows.fetchall():
            if held <= least:
                break
            oldest.append(number)
            held -= cost
        return oldest

    def _count_in(self, entries: Iterable[Entry], connection: sqlite3.Connection) -> None:
        """Counts entries before they are inserted."""
        used = self._count(connection)
        for entry in entries:
            used[entry.tenant] += entry.cost
            self.presence.add(entry.key)

    def _count(self, connection: sqlite3.Connection) -> Counter[str]:
        if self._used is None:
            rows = connection.execute(
                "SELECT tenant, SUM(cost) FROM entries WHERE state = 1 GROUP BY tenant"
            )
            self._used = Counter(dict(rows.fetchall()))
        return self._used


def delete(numbers: Sequence[int], connection: sqlite3.Connection) -> None:
    """Deletes rows and their chunks, whatever their state."""
    if numbers:
        query = f"DELETE FROM entries WHERE id IN ({_times(len(numbers), '?')})"  # noqa: S608
        connection.execute(query, numbers)


def _enough(octets: Iterable[int]) -> int:
    """How many from the first on are removed in one transaction."""
    number, total = 0, 0
    for number, some in enumerate(octets, 1):  # noqa: B007
        total += some
        if total >= MUCH:
            break
    return number


def _free_pages(connection: sqlite3.Connection) -> int:
    number: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    return number


def _without_repeats(batch: Sequence[Waiting]) -> Iterator[list[Waiting]]:
    """Runs in which every key is there once: what comes later replaces what came before."""
    run: dict[bytes, Waiting] = {}
    for one in batch:
        if one.entry.key in run:
            yield list(run.values())
            run = {}
        run[one.entry.key] = one
    yield list(run.values())


def _times(count: int, text: str) -> str:
    return ", ".join([text] * count)
