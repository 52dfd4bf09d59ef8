"""What several processes have in common, in one Redis: leases, and answers as streams of records.

One subscription hears for the whole process that a leader has said something, or that a follower
has come; the records themselves are asked for. Once a second each gives a sign of life, and hears
then what it may have missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from proxy.cache import leases
from proxy.cache.commons import (
    LANDED_SECONDS,
    LEASE_SECONDS,
    RENEWED_SECONDS,
    Boarded,
    Fence,
    Lost,
    Put,
    Wish,
)
from proxy.cache.shelf import tag_of
from proxy.engine import Client, Engine, Gone, Script
from vault import Sealer, VaultError

LEASE_MS: Final = int(LEASE_SECONDS * 1000)
LANDED_MS: Final = int(LANDED_SECONDS * 1000)
LINGER_MS: Final = 30_000
"""How long the records stay once all are said."""

AT_ONCE: Final = 16
"""Records that are asked for together."""

TRIES: Final = int(LEASE_SECONDS / RENEWED_SECONDS)
"""How often a leader says the same, once a second."""

BATCH: Final = 100
"""Signs of life that are given in one go."""


class Names:
    """What Redis knows a leader by, in the slot of the key's shelf: see `leases.py`."""

    __slots__ = ("aboard", "answer", "key", "leader", "lease")

    def __init__(self, engine: Engine, key: bytes, leader: str) -> None:
        self.key = key
        self.lease = engine.key("cache", tag_of(key), "flight")
        self.leader = f"{self.lease}:{leader}"
        self.answer = f"{self.leader}:answer"
        self.aboard = f"{self.leader}:aboard"

    @property
    def all(self) -> tuple[str, str, str, str]:
        """As scripts ask for them."""
        return self.lease, self.aboard, self.leader, self.answer


class RedisCommons:
    """As the Protocol `Commons`. `sealer`: for what is said, bound to its place."""

    def __init__(self, engine: Engine, sealer: Sealer) -> None:
        self.sealer = sealer
        self.engine = engine
        self.me = secrets.token_hex(8)
        self.parties: dict[str, list[Party]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None

    @property
    def channel(self) -> str:
        """Where this process hears of others."""
        return self.engine.key("flights", self.me)

    async def board(self, wish: Wish) -> Boarded:
        """One question to Redis for who leads, one more for who follows."""
        leader, besides = f"{self.me}-{secrets.token_hex(8)}", wish.besides.decode()
        lead = RedisLead(self, Names(self.engine, wish.key, leader), leader, wish)
        self._note(lead)  # before it leads: somebody may follow at once
        boarded = Boarded()
        try:
            boarded = await self._boarded(lead, wish, besides)
        except (Gone, ValueError):  # or somebody has written nonsense there
            pass
        finally:
            if boarded.lead is None:
                self.forget(lead)
        return boarded

    async def _boarded(self, lead: RedisLead, wish: Wish, besides: str) -> Boarded:
        missed = ""
        while True:
            who, found = await self._ask_who(lead, wish, besides)
            if who == 0:
                return Boarded(lead=lead)
            if who == 2:
                return Boarded(landed=found.encode())
            follow = RedisFollow(self, Names(self.engine, wish.key, found), found)
            if await follow.join():
                self._note(follow)
                return Boarded(follow=follow)
            if found == missed:
                besides = found
            missed = found  # once: its answer may have been stored since

    async def _ask_who(self, lead: RedisLead, wish: Wish, besides: str) -> tuple[int, str]:
        names = lead.names.lease, lead.names.leader
        times = repr(wish.at), repr(max(wish.after, 0.0))
        said = *times, int(wish.joins), besides, LEASE_MS, self.channel
        try:
            who, found = await self.run(leases.BOARD, names, lead.id, *said)
        except BaseException:
            self.spawn(lead.drop())  # Redis may have heard it
            raise
        return who, found.decode()

    async def run(self, script: Script, names: tuple[str, ...], *values: Any) -> Any:
        """What a script returns, asked together with others; raises Gone."""
        return await self.engine.script(script, names, *values)

    async def run_apart(self, script: Script, names: tuple[str, ...], *values: Any) -> Any:
        """The same for what may be large."""
        return await self.engine.run(lambda client: script.run(client, names, *values))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Does something that nobody waits for."""
        task = asyncio.create_task(work, name="keyrelay-commons")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _note(self, party: Party) -> None:
        self.parties.setdefault(party.id, []).append(party)
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew_forever(), name="keyrelay-leases")
            self._listening = asyncio.create_task(self._listen_forever(), name="keyrelay-flights")

    def forget(self, party: Party) -> None:
        """It needs no sign of life any more."""
        others = [one for one in self.parties.pop(party.id, ()) if one is not party]
        if others:
            self.parties[party.id] = others

    async def aclose(self) -> None:
        """Lets go; what is not said by now is not."""
        tasks = [task for task in (self._renewing, self._listening, *self._tasks) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Signs of life.

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(RENEWED_SECONDS)
            parties = [party for of_one in self.parties.values() for party in of_one]
            for start in range(0, len(parties), BATCH):
                await self._renew(parties[start : start + BATCH])

    async def _renew(self, parties: list[Party]) -> None:
        async def ask(client: Client) -> list[Any]:
            pipeline = client.pipeline(transaction=False)
            for party in parties:
                script, names, *values = party.sign
                pipeline.eval(script, len(names), *names, *values)
            found: list[Any] = await pipeline.execute(raise_on_error=False)
            return found

        try:
            found = await self.engine.run(ask)
        except Gone:
            found = [None] * len(parties)
        for party, told in zip(parties, found, strict=True):
            party.signed(told if isinstance(told, int) else None)

    # Hearing.

    async def _listen_forever(self) -> None:
        while True:
            with contextlib.suppress(Gone):
                async with contextlib.aclosing(self.engine.heard(self.channel)) as heard:
                    async for news in heard:
                        self._hear(news)
            await asyncio.sleep(RENEWED_SECONDS)

    def _hear(self, news: bytes | None) -> None:
        """From one leader; or that the subscription begins: what was said before was missed."""
        for leader in list(self.parties) if news is None else (news.decode("latin-1"),):
            for party in self.parties.get(leader, ()):
                party.stir()


class Party(Protocol):
    """A leader or a follower, as signs of life are given for it. `id`: the leader's."""

    id: str

    @property
    def sign(self) -> tuple[Any, ...]:
        """A script, names and values."""
        ...

    def signed(self, told: int | None) -> None:
        """What was answered; None: nothing was."""
        ...

    def stir(self) -> None:
        """Something has happened to the leader."""
        ...


class RedisLead:
    """A lease; as the Protocol `Lead`."""

    def __init__(self, commons: RedisCommons, names: Names, leader: str, wish: Wish) -> None:
        self.id = leader
        self.names = names
        self._commons = commons
        self._wanted: Callable[[], None] = wish.wanted
        self._room = wish.room
        self._said = 0
        self._fence = Fence(names.all, (leader, LEASE_MS, LANDED_MS))

    async def say(self, record: bytes) -> bool:
        """Sealed, and bound to its place. While Redis can't be asked it is said again, for as long
        as a lease lasts: by its number it is taken once."""
        number = self._said + 1
        sealed = self._commons.sealer.seal(record, bound(self.names.key, self.id, number))
        for _ in range(TRIES):
            with contextlib.suppress(Gone):
                return await self._take(number, sealed)
            await asyncio.sleep(RENEWED_SECONDS)
        raise Lost

    async def _take(self, number: int, sealed: bytes) -> bool:
        where = self.names.aboard, self.names.leader, self.names.answer
        said = self.id, number, sealed, self._room, LEASE_MS
        followers = await self._commons.run_apart(leases.SAY, where, *said)
        if followers < 0:
            raise Lost
        if followers > 0:
            self._said = number
        return bool(followers > 0)

    async def keep(self, put: Put) -> bool:
        """The store asks for the lease, and closes it."""
        return await put(self._fence)

    async def close(self, landed: bool) -> bool:  # noqa: ARG002 - the store has told it
        """Nothing is left of it where nobody follows."""
        followers = self._fence.followers
        if followers is None:
            followers = 0
            with contextlib.suppress(Gone):
                followers = await self._commons.run(leases.CLOSE, self.names.all, self.id, LEASE_MS)
        if not followers:
            self._commons.forget(self)
        return bool(followers)

    async def end(self) -> None:
        """What was said lingers."""
        self._commons.forget(self)
        where = self.names.aboard, self.names.leader, self.names.answer
        with contextlib.suppress(Gone):
            await self._commons.run(leases.END, where, self.id, LINGER_MS)

    async def drop(self) -> None:
        """It may have been taken, and nobody knows."""
        await self.close(landed=False)

    @property
    def sign(self) -> tuple[Any, ...]:
        """What is said once a second."""
        names = self.names
        where = names.aboard, names.leader, names.answer, names.lease
        return leases.LIVE, where, self.id, LEASE_MS

    def signed(self, told: int | None) -> None:
        """How many follow."""
        if told is not None and told > 0:
            self._wanted()

    def stir(self) -> None:
        """Somebody may have come."""
        self._wanted()


class RedisFollow:
    """A place aboard; as the Protocol `Follow`."""

    def __init__(self, commons: RedisCommons, names: Names, leader: str) -> None:
        self.id = leader
        self.names = names
        self._commons = commons
        self._member = f"{secrets.token_hex(8)} {commons.channel}"
        self._heard = 0
        self._missed = 0.0
        self._news = asyncio.Event()

    @property
    def leader(self) -> bytes:
        """Its id."""
        return self.id.encode()

    async def join(self) -> bool:
        """Whether the leader is still there; raises Gone."""
        where = self.names.leader, self.names.aboard
        joined = await self._commons.run(leases.JOIN, where, self.id, self._member, LEASE_MS)
        return bool(joined)

    async def hear(self) -> list[bytes]:
        """Asks whenever something may have been said. While Redis can't be asked it waits, once it
        has heard the beginning, for as long as a lease lasts."""
        while True:
            self._news.clear()
            try:
                over, *found = await self._commons.run_apart(
                    leases.HEAR, (self.names.leader, self.names.answer), self._heard, AT_ONCE
                )
            except Gone as error:
                if not self._heard or self._missed >= LEASE_SECONDS:
                    raise Lost from error
            else:
                if found:
                    return self._opened(found)
                if over:
                    raise Lost
            await self._news.wait()

    def _opened(self, found: list[bytes]) -> list[bytes]:
        records = []
        for number, sealed in zip(found[::2], found[1::2], strict=True):
            self._heard += 1
            if int(number) != self._heard:
                raise Lost
            aad = bound(self.names.key, self.id, self._heard)
            try:
                records.append(self._commons.sealer.open(sealed, aad))
            except VaultError as error:
                raise Lost from error
        return records

    def leave(self) -> None:
        """The leader is told when it next says something."""
        self._commons.forget(self)
        self._commons.spawn(self._leave())

    async def _leave(self) -> None:
        with contextlib.suppress(Gone):
            await self._commons.run(leases.LEAVE, (self.names.aboard,), self._member)

    @property
    def sign(self) -> tuple[Any, ...]:
        """What is said once a second."""
        where = self.names.aboard, self.names.leader
        return leases.LISTEN, where, self._member, self._heard, LEASE_MS

    def signed(self, told: int | None) -> None:
        """Whether there is something to hear."""
        self._missed = 0.0 if told is not None else self._missed + RENEWED_SECONDS
        if told or self._missed >= (LEASE_SECONDS if self._heard else RENEWED_SECONDS):
            self.stir()

    def stir(self) -> None:
        """There may be something to hear."""
        self._news.set()


def bound(key: bytes, leader: str, number: int) -> bytes:
    """The associated data of a record: it opens in its place only."""
    return json.dumps(("keyrelay flight 1", key.hex(), leader, number)).encode()
