"""Equal calls of all workers are one upstream call: the coordinator knows who makes it, and holds
what was said for those who follow. `Commons` says what is promised."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from proxy.cache.commons import LANDED_SECONDS, Boarded, Fence, Lost, Put, Wish
from proxy.workers.companion import Companion
from proxy.workers.link import Away, Link, Refused, Verb

AT_ONCE: Final = 4 << 20
"""So many octets are heard in one answer, and one record more: a message must stay small."""

LINGER_SECONDS: Final = 60.0
"""So long what was said stays at most for those who are behind."""


class Leading:
    """One leader and what it has said. `first`: the number of the oldest record that is held."""

    def __init__(self, number: int, link: Link, key: bytes, at: float, room: int) -> None:
        self.number = number
        self.link = link
        self.key = key
        self.at = at
        self.joined = True  # others may follow
        self.landed = False
        self.newest = True
        self.over = False
        self.followers: dict[int, Link] = {}
        self._room = room
        self._first = 0
        self._records: list[bytes] = []
        self._held = 0
        self._news = asyncio.Event()

    def say(self, record: bytes) -> None:
        """One more; the oldest go where there are too many octets."""
        self._records.append(record)
        self._held += len(record)
        while self._held > self._room and len(self._records) > 1:
            self._held -= len(self._records.pop(0))
            self._first += 1
        self._tell()

    async def heard(self, place: int) -> list[bytes]:
        """What was said from there on, or a part; nothing: nothing more will be."""
        while place == self._first + len(self._records) and not self.over:
            await self._news.wait()
        if place < self._first:
            return []
        octets, start = 0, place - self._first
        for end in range(start, len(self._records)):
            octets += len(self._records[end])
            if octets > AT_ONCE:
                return self._records[start : end + 1]
        return self._records[start:]

    def close(self, landed: bool) -> None:
        """Nobody joins any more."""
        self.joined, self.landed = False, self.landed or landed

    def end(self) -> None:
        """Nothing more will be said."""
        self.close(landed=False)
        self.over = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Boarding:
    """An Office: all leaders of all workers."""

    def __init__(self) -> None:
        self._numbers = count(1 + secrets.randbits(48))  # never those of a coordinator before
        self._current: dict[bytes, Leading] = {}
        self._all: dict[int, Leading] = {}

    def __len__(self) -> int:
        return len(self._all)

    @property
    def verbs(self) -> dict[str, Verb]:
        """What workers may ask."""
        return {
            "board": self._board,
            "board_say": self._say,
            "board_close": self._close,
            "board_end": lambda _link, number: self._finish(self._all[number]),
            "board_hear": lambda _link, number, place: self._all[number].heard(place),
            "board_leave": self._leave,
        }

    def forget(self, link: Link) -> None:
        """A worker has gone: what it leads is over, without a word."""
        for leading in list(self._all.values()):
            leading.followers = {
                place: one for place, one in leading.followers.items() if one is not link
            }
            if leading.link is link:
                leading.end()
                self._drop(leading)

    def holds(self, link: Link, number: int, key: bytes) -> bool:
        """Whether a worker's leader of a key is the one that others join: it may store."""
        leading = self._all.get(number)
        if leading is None or leading.link is not link:
            return False
        return leading.newest and leading.key == key

    def outdate(self, key: bytes, at: float) -> None:
        """A later answer is stored, of a worker that could not board: nobody joins or stores this
        one any more."""
        leading = self._current.get(key)
        if leading is not None and leading.at < at:
            leading.newest = False
            self._uncover(leading)

    def _board(self, link: Link, wish: Any) -> tuple[str, int, int]:
        """What the worker is, of which leader, and its place among those who follow."""
        key, at, after, joins, room, besides = wish
        found = self._current.get(key)
        if found is not None and joins and found.at > after and found.number != besides:
            if found.landed:
                return "landed", found.number, 0
            if found.joined:
                place = next(self._numbers)
                found.followers[place] = link
                found.link.tell("board_wanted", found.number)
                return "follow", found.number, place
        leading = Leading(next(self._numbers), link, key, at, room)
        self._current[key] = self._all[leading.number] = leading
        if found is not None:
            found.newest = False
        return "lead", leading.number, 0

    def _say(self, _link: Link, number: int, record: bytes) -> bool:
        leading = self._all[number]
        if leading.over:
            raise Lost
        if leading.followers:
            leading.say(record)
        return bool(leading.followers)

    def _close(self, _link: Link, number: int, landed: bool) -> bool:
        leading = self._all[number]
        leading.close(landed)
        if landed:
            loop = asyncio.get_running_loop()
            loop.call_later(LANDED_SECONDS, self._uncover, leading)
        else:
            self._uncover(leading)
        if not leading.followers:
            leading.end()
            del self._all[number]
        return bool(leading.followers)

    def _finish(self, leading: Leading) -> None:
        leading.end()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._drop, leading)

    def _leave(self, _link: Link, number: int, place: int) -> None:
        leading = self._all.get(number)
        if leading is not None:
            leading.followers.pop(place, None)
            if leading.over and not leading.followers:
                self._all.pop(number, None)

    def _uncover(self, leading: Leading) -> None:
        if self._current.get(leading.key) is leading:
            del self._current[leading.key]

    def _drop(self, leading: Leading) -> None:
        self._uncover(leading)
        self._all.pop(leading.number, None)


class TeamCommons:
    """A worker's end; see `Commons`."""

    def __init__(self, companion: Companion) -> None:
        self._companion = companion
        self._wanted: dict[int, Callable[[], None]] = {}
        self._early: set[int] = set()
        companion.on("board_wanted", self._want)

    async def board(self, wish: Wish) -> Boarded:
        """Who makes the call."""
        besides = int(wish.besides or 0)
        given = wish.key, wish.at, wish.after, wish.joins, wish.room, besides
        asking = asyncio.ensure_future(self._companion.ask("board", given))
        try:
            what, number, place = await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(self._let_go)
            raise
        except (Away, Refused):
            return Boarded()
        if what == "landed":
            return Boarded(landed=b"%d" % number)
        if what == "follow":
            return Boarded(follow=Following(self._companion, number, place))
        self._wanted[number] = wish.wanted
        if number in self._early:
            self._want(number)
        self._early.clear()
        return Boarded(lead=Held(self._companion, number, lambda: self._wanted.pop(number, None)))

    async def aclose(self) -> None:
        """Nothing: what is left ends with the connection."""

    def _want(self, number: int) -> None:
        wanted = self._wanted.get(number)
        if wanted is None:
            self._early.add(number)
        else:
            wanted()

    def _let_go(self, asking: asyncio.Future[Any]) -> None:
        """Whoever asked has gone: nobody leads, nobody follows."""
        if asking.cancelled() or asking.exception() is not None:
            return
        what, number, place = asking.result()
        if what == "lead":
            self._companion.tell("board_end", number)
        elif what == "follow":
            self._companion.tell("board_leave", number, place)


class Held:
    """The lease of a call that this worker makes."""

    def __init__(self, companion: Companion, number: int, forget: Callable[[], object]) -> None:
        self._companion = companion
        self._number = number
        self._forget = forget

    async def say(self, record: bytes) -> bool:
        """The next record, to all followers; False: none is left. Raises Lost."""
        try:
            return bool(await self._companion.ask("board_say", self._number, record))
        except (Away, Refused) as error:
            raise Lost from error

    async def keep(self, put: Put) -> bool:
        """Stores its answer; the coordinator looks whether another has taken its place."""
        return await put(Fence((), (self._number,)))

    async def close(self, landed: bool) -> bool:
        """Lets nobody join any more; whether there are followers."""
        try:
            followed = bool(await self._companion.ask("board_close", self._number, landed))
        except (Away, Refused):
            followed = False
        if not followed:
            self._forget()
        return followed

    async def end(self) -> None:
        """Nothing more will be said."""
        self._forget()
        self._companion.tell("board_end", self._number)


class Following:
    """A place aboard a call that another worker makes."""

    def __init__(self, companion: Companion, number: int, place: int) -> None:
        self._companion = companion
        self._number = number
        self._place = place
        self._next = 0

    @property
    def leader(self) -> bytes:
        """Which one it is."""
        return b"%d" % self._number

    async def hear(self) -> list[bytes]:
        """The next records, as soon as they were said; raises Lost."""
        try:
            records = await self._companion.ask("board_hear", self._number, self._next)
        except (Away, Refused) as error:
            raise Lost from error
        if not records:
            raise Lost
        self._next += len(records)
        return list(records)

    def leave(self) -> None:
        """Hears no more of it."""
        self._companion.tell("board_leave", self._number, self._place)
