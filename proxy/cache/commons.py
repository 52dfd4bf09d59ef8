"""What several processes have in common: who makes the call that they all want, and who hears it.

For one key there is at most one *leader* that others may join. It holds a lease, makes the call,
and says its answer as records; *followers* hear them from the first to the last. What an
implementation promises:

- `board` is one atomic step for all processes. Whoever `joins` gets a follower's place where there
  is a leader that began after `Wish.after`; else, and whoever does not join, becomes the leader, in
  place of the one before. The one before may go on and say all of its answer to those aboard;
  nobody joins it any more, and from now on `keep` keeps nothing of it: that is the fence. However
  late it comes, no answer of a leader is stored over that of a later one.
- A leader whose answer was stored leaves a mark for LANDED_SECONDS: who looked for a stored
  answer a moment too early is told to look again (`Boarded.landed`).
- `Wish.besides` is the leader or mark that has let the asker down: to it, it is not there. So of
  many who lost one leader, one leads and the others follow it.
- The lease of a process that dies or loses its way is over within LEASE_SECONDS, without anybody's
  help; a live one lasts as long as it takes. Its followers then hear Lost. They hear Lost too when
  it ends before its header, when a record is missing, and when the way to it is gone.
- `wanted` of a leader is called in its event loop, soon after a follower came; perhaps more than
  once. With no followers nothing needs to be said, and nothing is.
- What is said is held in no greater amount than `Wish.room`: beyond it the oldest records go, and
  who has not heard them is lost. Nothing is held for more than a minute after the end.
- Nothing here raises, but Lost; nothing waits much longer than an engine's deadline, but `hear`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

LEASE_SECONDS: Final = 4.0
"""After so long without a sign a leader counts as dead."""

RENEWED_SECONDS: Final = 1.0
"""How often it gives one."""

LANDED_SECONDS: Final = 5.0
"""How long a stored answer is news: longer than anybody takes from look-up to boarding."""


class Lost(Exception):
    """The leader, or the way to it, is gone: nothing more will be heard or said."""


class Overtaken(Exception):
    """Another has taken the leader's place, or its lease is over: its answer is not stored."""


@dataclass(slots=True)
class Fence:
    """For a store that lies where the leases are: it asks for the lease, and closes it, in the one
    step in which it keeps an answer.

    `names`, `values`: what it asks with; nothing, where nobody could be asked for a lease: then
    that of an older call is over. `followers`: how many there were, None: not kept yet.
    """

    names: tuple[str, ...] = ()
    values: tuple[str | int, ...] = ()
    followers: int | None = None


Put = Callable[[Fence | None], Awaitable[bool]]
"""Stores an answer; whether it is stored."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a process asks for a key. Times are Unix seconds by the processes' own clocks.

    `at`: when the call is sent, should it lead; `after`: leaders that began up to then were purged;
    `joins`: whether another's answer will do; `room`: octets to be held of its own, should it lead.
    `wanted`: to be called when somebody follows.
    """

    key: bytes
    at: float
    after: float
    joins: bool
    room: int
    wanted: Callable[[], None]
    besides: bytes = b""


class Lead(Protocol):
    """The lease of a call that this process makes."""

    async def say(self, record: bytes) -> bool:
        """The next record, to all followers; False: none is left. Raises Lost."""
        ...

    async def keep(self, put: Put) -> bool:
        """Stores its answer by `put`: with a fence for a store that asks for itself, else after it
        has asked; raises Overtaken where another has taken its place. Where nobody can be asked,
        the store decides."""
        ...

    async def close(self, landed: bool) -> bool:
        """Lets nobody join any more; `landed`: the answer has been stored. Whether there are
        followers: if not, it is over, and `end` is not needed. May be called again, and asks
        nothing where the store has closed it."""
        ...

    async def end(self) -> None:
        """Nothing more will be said: what was said stays a while for those who are behind."""
        ...


class Follow(Protocol):
    """A place aboard a call that another process makes. `leader`: for `Wish.besides`."""

    @property
    def leader(self) -> bytes:
        """Which one it is."""
        ...

    async def hear(self) -> list[bytes]:
        """The next records, at least one, as soon as they were said; raises Lost."""
        ...

    def leave(self) -> None:
        """Hears no more of it; call it once, at the end, however it came."""
        ...


class Boarded(NamedTuple):
    """One of the three, or nothing: nobody can be asked now, and each goes alone."""

    lead: Lead | None = None
    follow: Follow | None = None
    landed: bytes = b""


class Commons(Protocol):
    """What is shared; one object a process."""

    async def board(self, wish: Wish) -> Boarded:
        """Who makes the call."""
        ...

    async def aclose(self) -> None:
        """Lets go of all."""
        ...
