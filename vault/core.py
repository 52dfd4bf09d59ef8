"""What the vault's verbs share: the store, the data keys, the clock, and what was looked up."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from vault.anchor import Anchor, Point, mark, point_of
from vault.audit import TAKEN_IN, Change, Log, end_of
from vault.chain import State, authentic, judge_seal, seal_of
from vault.datakeys import FINGERPRINTS, DataKeys
from vault.declared import Declarations
from vault.errors import RolledBack, StoreUnavailable
from vault.held import Roll
from vault.lookups import Bounded, Lookups
from vault.register import EMPTY, Register
from vault.registering import Book, read
from vault.sealing import DataKey, KeyedHasher
from vault.store import Store, bump, hold, put_state, state_in, write_state

_ROLLS: Final = 16
"""Tenants of many keys, whose rolls are kept; some 2 MB of memory for 5,000."""


class Clock(Protocol):
    """The time, in seconds since the Unix epoch."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        ...


class Moment:
    """What everybody who works on one open vault sees, whoever they are."""

    __slots__ = (
        "anchor", "declared", "hasher", "late", "point", "refused", "register", "rolls", "run",
        "seen",
    )  # fmt: skip

    def __init__(self, anchor: Anchor) -> None:
        self.anchor = anchor
        self.hasher: KeyedHasher | None = None
        self.refused: RolledBack | StoreUnavailable | None = None
        self.point = Point(0, -1)
        self.register: Register | None = None
        self.run = secrets.token_hex(8)
        self.late = ""
        self.seen = Lookups()
        self.rolls: Bounded[str, Roll] = Bounded(_ROLLS)
        self.declared = Declarations()


class Core:
    """One open vault, without its verbs, as one actor works on it."""

    def __init__(
        self,
        store: Store,
        data_keys: DataKeys,
        clock: Clock,
        actor: str,
        moment: Moment,
    ) -> None:
        self.store = store
        self.data_keys = data_keys
        self.clock = clock
        self.actor = actor
        self._moment = moment

    def acting_as(self, actor: str) -> Core:
        """The same vault, for changes that somebody else makes."""
        return Core(self.store, self.data_keys, self.clock, actor, self._moment)

    @property
    def anchor(self) -> Anchor:
        """What knows the number of changes beside the database."""
        return self._moment.anchor

    @property
    def generation(self) -> int:
        """How often the vault was changed, as far as this process knows; -1: it can't be known."""
        return self._moment.point.generation if self._moment.refused is None else -1

    @property
    def point(self) -> Point:
        """How far the vault has come, as far as this process knows."""
        return self._moment.point

    @property
    def run(self) -> str:
        """What tells this opening of the vault from every other; or those that are as one."""
        return self._moment.run

    @run.setter
    def run(self, run: str) -> None:
        self._moment.run = run

    @property
    def seen(self) -> Lookups:
        """What was looked up since the last change."""
        return self._moment.seen

    @property
    def rolls(self) -> Bounded[str, Roll]:
        """What tenants of many keys held, whatever was changed since."""
        return self._moment.rolls

    @property
    def declared(self) -> Declarations:
        """What the configuration file owns."""
        return self._moment.declared

    @declared.setter
    def declared(self, declared: Declarations) -> None:
        self._moment.declared = declared

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A snapshot to read from; raises StoreUnavailable, and RolledBack once that was seen."""
        self.require_sound()
        return self.store.reading()

    def require_sound(self) -> None:
        """Raises RolledBack while the database is known to be another than it should be, and
        StoreUnavailable after a lapse."""
        refused = self._moment.refused
        if refused is not None:
            raise type(refused)(str(refused))

    def lapse(self) -> None:
        """Nothing that was read counts any more, until the database is read again."""
        self.forget()
        self._moment.refused = StoreUnavailable(
            "the vault's database could not be read for too long; see that its disk is there"
        )

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[Change]:
        """One transaction: durable and counted when it ends, the look-ups forgotten.

        Also where the anchor can't follow: `catch_up` says so.
        """
        begun = False
        try:
            async with self.store.writing() as connection:
                state = await bump(connection)
                begun = True
                before = state._replace(generation=state.generation - 1)
                change = await self._begun(connection, before)
                yield change
                state = await _sealed(change, state.generation)
            self._moment.point = max(self._moment.point, point_of(state))
            self._moment.register = change.book.register
            await self._advance(state)
        finally:
            if begun:  # else nothing has changed, and what was seen may be all that there is
                self.forget()

    @asynccontextmanager
    async def noting(self) -> AsyncIterator[Change]:
        """The same for entries about what changes nothing: it is not counted, nothing forgotten."""
        async with self.store.writing() as connection:
            state = await hold(connection)
            change = await self._begun(connection, state)
            yield change
            state = await _sealed(change, state.generation)
        # Of a change that another process made this one may not have heard yet: `refresh` will.
        seen = self._moment.point
        self._moment.point = Point(seen.generation, max(seen.rows, point_of(state).rows))
        await self._advance(state)

    @asynccontextmanager
    async def accepting(self, at_least: int) -> AsyncIterator[Change]:
        """The same for an older database that is accepted: it counts on from a greater number."""
        hasher = await self.generation_hasher()
        async with self.store.writing() as connection:
            await put_state(connection)
            state = await bump(connection)
            generation = max(state.generation, at_least)
            before = state._replace(generation=state.generation - 1)
            ours = authentic(hasher, before)
            head = await end_of(connection, before.head if ours else None)
            register = await self._read(connection, before) if ours else None
            change = self._change(connection, Log(hasher, head), register)
            if head is None:
                await change.begin(hasher)
            if register is None or None in register.pages:
                await _take_in(change)
            await self.data_keys.mark(change)
            yield change
            state = await _sealed(change, generation)
        self._moment.point, self._moment.register = point_of(state), change.book.register
        self.forget()

    async def begin(self, hasher: KeyedHasher) -> State:
        """Makes the audit log a chain and all rows known to the register, and seals both for good,
        unless another process was faster."""
        async with self.store.writing() as connection:
            state = await hold(connection)
            if state.seal is not None:
                judge_seal(hasher, state)
            register = await self._read(connection, state) if state.seal is not None else None
            change = self._change(connection, Log(hasher, state.head), register)
            if not await self.data_keys.mark(change):
                judge_seal(hasher, state, registered=True)
                return state
            if state.head is None:
                await change.begin(hasher)
            if register is None:
                await _take_in(change)
            # A seal that knew of no register must not be one of the number that now has one.
            return await _sealed(change, state.generation + (state.seal is not None))

    async def _begun(self, connection: AsyncConnection, before: State) -> Change:
        """A transaction's change; judges the number before it, and the end of the log."""
        hasher = self._moment.hasher
        guarded = hasher is not None
        if hasher is None:  # not open yet: another process may be making this vault as well
            key = await self.data_keys.stored(connection, FINGERPRINTS)
            hasher = KeyedHasher(key) if key is not None else None
        # Its maker seals the number that it has counted, or whoever counts on.
        if hasher is not None and (guarded or before.seal is not None):
            self.judge(hasher, before)
        register = await self._read(connection, before) if hasher is not None else None
        return self._change(connection, Log(hasher, before.head), register)

    def _change(self, connection: AsyncConnection, log: Log, register: Register | None) -> Change:
        book = Book(connection, register)
        return Change(connection, self.clock.now(), self.actor, log, book)

    async def _read(self, connection: AsyncConnection, state: State) -> Register | None:
        held = self._moment.register
        if state.root is None:
            return None
        if held is not None and held.root == state.root:
            return held
        return await read(connection, state.root, held)

    async def require_pages(self, state: State) -> None:
        """Raises RolledBack where a page of the register is not as it was written."""
        async with self.reading() as connection:
            found = await self._read(connection, state)
        if found is not None and None in found.pages:
            raise RolledBack("the register of the vault's database was changed or replayed")

    async def register(self, connection: AsyncConnection) -> Register:
        """What each row should be that a snapshot shows; raises RolledBack where it is not ours."""
        state, moment = await state_in(connection), self._moment
        if moment.register is None or state.root != moment.register.root:
            self.judge(await self.generation_hasher(), state)
            moment.register = await self._read(connection, state) or EMPTY
        return moment.register

    async def _advance(self, state: State) -> None:
        if self._moment.hasher is not None and state.seal is not None:
            await self._anchor_at(self._moment.hasher, point_of(state))

    async def _anchor_at(self, hasher: KeyedHasher, point: Point) -> None:
        # What was changed is durable: whoever heard of an error would do it again, and again.
        try:
            await asyncio.to_thread(self.anchor.advance, point, mark(hasher, point))
        except StoreUnavailable as error:
            self._moment.late = str(error)
        else:
            self._moment.late = ""

    async def catch_up(self) -> str:
        """Writes the anchor once more where that could not be done; why it still can't, or ""."""
        moment = self._moment
        if moment.late and moment.hasher is not None:
            await self._anchor_at(moment.hasher, moment.point)
        return moment.late

    def judge(self, hasher: KeyedHasher, state: State) -> None:
        """Raises RolledBack for a state that is not ours, or earlier than what was seen already."""
        judge_seal(hasher, state)
        if point_of(state) < self._moment.point:
            raise RolledBack(
                "the vault's database was replaced by an older one while it was in use; stop the "
                "server and put the newest one back, or go on with: "
                "keyrelay serve --accept-rollback"
            )

    async def generation_hasher(self) -> KeyedHasher:
        """What authenticates the number of changes."""
        return KeyedHasher(await self.data_key(FINGERPRINTS))

    def guard(self, hasher: KeyedHasher) -> None:
        """From now on each change judges the number before it, and seals its own."""
        self._moment.hasher = hasher

    def forget(self) -> None:
        """Drops every look-up; those under way will not be remembered."""
        self._moment.seen = Lookups()

    async def refresh(self) -> bool:
        """Drops the look-ups if another process has changed the vault; True if so.

        Raises RolledBack, and nothing is read any more, as long as the database is an older one;
        StoreUnavailable, and what was looked up stays.
        """
        moment, state = self._moment, await self.store.state()
        if state.generation == moment.point.generation and moment.refused is None:
            return False
        self.forget()
        try:
            if moment.hasher is not None:
                self.judge(moment.hasher, state)
        except RolledBack as error:
            moment.refused = error
            raise
        moment.point, moment.refused = point_of(state), None
        await self._advance(state)  # what was heard of is not unheard by a start
        return True

    async def data_key(self, purpose: str) -> DataKey:
        """The current data key of a purpose, made durably on first use."""
        key = self.data_keys.current(purpose)
        if key is not None:
            return key
        async with self.changing() as change:
            made = await self.data_keys.ensure(change, purpose)
        self.data_keys.adopt(made)
        return made

    async def reload_data_keys(self) -> None:
        """Reads the data keys again, for one that another process made."""
        async with self.reading() as connection:
            known = self._moment.hasher is not None  # before that nobody can judge the register
            register = await self.register(connection) if known else None
            await self.data_keys.load(connection, register)


async def _take_in(change: Change) -> None:
    """Makes every row known as it stands, whoever wrote it, and says so."""
    rows = await change.book.take_in()
    if rows:
        await change.record(TAKEN_IN, "", f"{rows} earlier rows")


async def _sealed(change: Change, generation: int) -> State:
    """Ends a transaction: its number, the end of the log, and what authenticates both."""
    log = change.log
    if log.hasher is None:
        return State(generation, None)
    register = await change.book.close()
    root = register.root if register is not None else None
    state = State(generation, seal_of(log.hasher, generation, log.head, root), log.head, root)
    await write_state(change.connection, state)
    return state
