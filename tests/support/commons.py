"""What processes have in common, in memory: several caches of one test share a `Hub`.

Each cache has its `Member`; `die` is what kill -9 does to it, `cut` is a way that is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from proxy.cache.commons import Boarded, Follow, Lead, Lost, Overtaken, Put, Wish


@dataclass(eq=False)
class Leading:
    """One leader and all that it has said."""

    id: bytes
    at: float
    member: Member
    wanted: Callable[[], None]
    open: bool = True
    landed: bool = False
    newest: bool = True
    over: bool = False
    asked: int = 0
    records: list[bytes] = field(default_factory=list)
    followers: set[Following] = field(default_factory=set)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        self.news.set()
        self.news.clear()


class Hub:
    """Where all members meet. `boarded`: every wish that came."""

    def __init__(self) -> None:
        self.current: dict[bytes, Leading] = {}
        self.boarded: list[Wish] = []
        self.numbers = count(1)

    def forget(self, leading: Leading) -> None:
        """Its mark is over."""
        self.current = {key: one for key, one in self.current.items() if one is not leading}

    @property
    def followers(self) -> int:
        """How many processes follow another."""
        return sum(len(one.followers) for one in self.current.values())


class Member:
    """One process. As the Protocol `Commons`. `closing`: while it is clear, none of its leaders is
    known to be closed."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.gone = False
        self.closing = asyncio.Event()
        self.closing.set()
        self.leads: list[Leading] = []

    async def board(self, wish: Wish) -> Boarded:
        self.hub.boarded.append(wish)
        await asyncio.sleep(0)
        if self.gone:
            return Boarded()
        found = self.hub.current.get(wish.key)
        if found is not None and wish.joins and found.at > wish.after and found.id != wish.besides:
            if found.landed:
                return Boarded(landed=found.id)
            if found.open:
                return Boarded(follow=Following(found, self))
        if found is not None:
            found.newest = False
        leading = Leading(b"%d" % next(self.hub.numbers), wish.at, self, wish.wanted)
        self.hub.current[wish.key] = leading
        self.leads.append(leading)
        return Boarded(lead=Held(leading))

    def die(self) -> None:
        """All of it is over, without a word."""
        self.gone = True
        for leading in self.leads:
            leading.over, leading.open = True, False
            leading.tell()

    async def aclose(self) -> None:
        self.gone = True


class Held(Lead):
    def __init__(self, leading: Leading) -> None:
        self.leading = leading

    async def say(self, record: bytes) -> bool:
        await asyncio.sleep(0)
        leading = self.leading
        if leading.member.gone:
            raise Lost
        leading.asked += 1
        if not leading.followers:
            return False
        leading.records.append(record)
        leading.tell()
        return True

    async def keep(self, put: Put) -> bool:
        await asyncio.sleep(0)
        if not self.leading.newest:
            raise Overtaken
        return await put(None)

    async def close(self, landed: bool) -> bool:
        await self.leading.member.closing.wait()
        self.leading.open = False
        self.leading.landed = landed
        return bool(self.leading.followers)

    async def end(self) -> None:
        self.leading.over = True
        self.leading.tell()


class Following(Follow):
    def __init__(self, leading: Leading, member: Member) -> None:
        self._leading = leading
        self._member = member
        self._heard = 0
        leading.followers.add(self)
        leading.wanted()

    @property
    def leader(self) -> bytes:
        return self._leading.id

    async def hear(self) -> list[bytes]:
        leading = self._leading
        while self._heard == len(leading.records):
            if leading.over or self._member.gone:
                raise Lost
            await leading.news.wait()
        records = leading.records[self._heard :]
        self._heard = len(leading.records)
        return records

    def leave(self) -> None:
        self._leading.followers.discard(self)
