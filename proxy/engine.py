"""One Redis for all rooms that share something between processes: deadlines, and a breaker.

Nobody waits long for a Redis that is gone: a command has a deadline, and one that failed keeps the
others from asking for a while. When the while is over one asks, and if it is answered, all do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from hashlib import sha1
from typing import Any, Final, TypeVar

from proxy.clock import Clock
from proxy.loads import Loads, Words
from proxy.redisurl import FILES, Place, kind_of

__all__ = ["FILES", "Engine", "Gone", "Place", "Refused", "Script"]

Client = Any
"""redis-py's, for one Redis or a cluster: they have no type in common."""

Result = TypeVar("Result")
Ask = Callable[[Client], Awaitable[Result]]

DEADLINE_SECONDS: Final = 1.0
"""How long a command may take, if its room does not say otherwise."""

PAUSE_SECONDS: Final = 1.0
"""How long nobody asks after a command that failed."""

SILENCE_SECONDS: Final = 1.0
"""After so long without a word to a listener Redis is asked whether it is there."""

AT_ONCE: Final = 16
"""Commands under way, each on a connection: whoever is too many waits, within the deadline."""

READ_OCTETS: Final = 1 << 19
"""At once: a chunk of a stored answer in few steps."""

KNOCK_SECONDS: Final = 0.3
"""For one node of several to answer: so that another is asked within the deadline."""

HALF_THERE: Final = frozenset({"ReadOnlyError", "BusyLoadingError", "MasterDownError"})
"""Who says so answers some commands all the same: a write tells whether that is over."""

_log = logging.getLogger("keyrelay.engine")


class Gone(Exception):
    """Redis can't be asked now; the message is a safe sentence for the log."""


class Refused(Gone):
    """Redis is there and did not do it: it has no room, or this user may not."""


class Unheard(Refused):
    """It does not know this script yet."""


class Engine:
    """One Redis, single, behind sentinels or a cluster.

    `prefix` stands before every name in it, so that two installs can share one. `up`: the last
    command was answered, or none was sent; `refuses`: it is there, and takes nothing that is
    written; `failures`: how many were not answered, or refused.
    """

    def __init__(self, place: Place, prefix: str, clock: Clock) -> None:
        self.place = place
        self._prefix = prefix
        self._clock = clock
        self._client: Client | None = None
        self._closing: Callable[[], Awaitable[object]] | None = None
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._loads = Loads(self._carry)
        self._ask_at = 0.0
        self._asking = False
        self._back: list[Callable[[], None]] = []
        self._half_there = False
        self.up = True
        self.refuses = False
        self.failures = 0

    @property
    def serves(self) -> bool:
        """Whether it answers, and takes what it is given."""
        return self.up and not self.refuses

    def key(self, room: str, tag: str, *rest: str) -> str:
        """A name. All with one room and tag are in one slot of a cluster, so in one script."""
        return ":".join((f"{self._prefix}:{{{room}:{tag}}}", *rest))

    def when_back(self, act: Callable[[], None]) -> None:
        """To be called each time that Redis answers again."""
        self._back.append(act)

    async def run(self, ask: Ask[Result], seconds: float = DEADLINE_SECONDS) -> Result:
        """What Redis answers to a command, a pipeline or a script; raises Gone, Refused.

        `ask` may be called with a connection that turns out dead: redis-py asks once more then.
        """
        now = self._clock.monotonic()
        if not self.up and (now < self._ask_at or self._asking):
            raise Gone("Redis did not answer a moment ago")
        client, probing, asked = self.client, not self.up, False
        self._asking = probing
        try:
            async with asyncio.timeout(seconds), self._turns:
                asked = True
                if self._half_there and probing:  # who only reads, or asks for a sign, saw nothing
                    await _unless_refused(client.set(self.key("engine", "probe"), b"", px=1000), 0)
                found = await ask(client)
        except Exception as error:
            raise self._failed(error) if asked else Gone("too many ask Redis at once") from error
        finally:
            if probing:
                self._asking = False
        if not self.up and (probing or not self._half_there):
            self._returned()
        return found

    async def ask(self, *words: Any, seconds: float = DEADLINE_SECONDS) -> Any:
        """What Redis answers to a small command, which goes with whatever others ask meanwhile;
        raises Gone, Refused. What is large goes by `run`: nobody is to wait behind it."""
        if not self.up or self.place.kind == "cluster":  # one tries; each has its node
            return await self.run(lambda client: client.execute_command(*words), seconds)
        question = self._loads.ask(words)
        try:
            async with asyncio.timeout(seconds):
                found = await question.answer
        except TimeoutError as error:
            gone = self._failed(error) if question.sent else Gone("too many ask Redis at once")
            raise gone from error
        if isinstance(found, Exception):
            told = isinstance(found, Gone)  # by `run`, which has counted it
            raise (_gone(found) if told else self._failed(found)) from found
        return found

    async def script(
        self, script: Script, keys: Sequence[str], *values: Any, seconds: float = DEADLINE_SECONDS
    ) -> Any:
        """What a script returns, asked for by `ask`."""
        words = (len(keys), *keys, *values)
        try:
            return await self.ask("EVALSHA", script.digest, *words, seconds=seconds)
        except Unheard:
            return await self.ask("EVAL", script.text, *words, seconds=seconds)

    async def _carry(self, commands: Sequence[Words]) -> Sequence[Any]:
        return await self.run(lambda client: self._carried(client, commands))

    async def _carried(self, client: Client, commands: Sequence[Words]) -> Sequence[Any]:
        answers = await _exchange(client, commands)
        for answer in answers:
            if isinstance(answer, Exception) and not _is_an_answer(answer):
                raise answer  # it is of no use to the others either
        return answers

    @property
    def client(self) -> Client:
        """redis-py's own, for what lasts, as subscriptions. Its errors are the caller's."""
        if self._client is None:
            self._client, self._closing = _CONNECT[self.place.kind](self.place)
        return self._client

    async def heard(self, channel: str) -> AsyncGenerator[bytes | None, None]:
        """What is said on a channel from now on; raises Gone when it can't be heard any more.

        None: the listening has begun, perhaps not for the first time: what was said before was
        missed.
        """
        subscription = self.client.pubsub()
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await subscription.subscribe(channel)
            while True:
                kind, _, said = await self._next(subscription)
                if kind == b"subscribe":
                    yield None
                elif kind == b"message":
                    yield said
        except Exception as error:
            raise _gone(error) from error
        finally:
            await subscription.aclose()

    async def _next(self, subscription: Any) -> tuple[bytes, bytes, bytes]:
        told = await _heard(subscription, SILENCE_SECONDS)
        if told is None:
            if not self.up:
                raise Gone("Redis does not answer")
            await subscription.ping()
            told = await _unless_refused(_heard(subscription, DEADLINE_SECONDS), [])
            if told is None:
                raise Gone("Redis says nothing")
        return tuple(told) if len(told) == 3 else (b"", b"", b"")

    async def start(self) -> None:
        """Loads what is needed: connections are opened when somebody asks."""
        _ = self.client

    async def stop(self) -> None:
        """Closes every connection."""
        await self.aclose()

    async def aclose(self) -> None:
        """Closes every connection, once what was asked is answered."""
        await self._loads.close()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
        if self._closing is not None:
            await self._closing()
            self._closing = None

    def fail(self, error: Exception) -> None:
        """Somebody saw it fail past `run`."""
        self._failed(error)

    def _failed(self, error: Exception) -> Gone:
        gone = _gone(error)
        self.failures += not isinstance(gone, Unheard)
        if isinstance(gone, Refused):
            return gone
        self._ask_at = self._clock.monotonic() + PAUSE_SECONDS
        self._half_there = self._half_there or type(error).__name__ in HALF_THERE
        if self.up:
            self.up = False
            _log.error("Redis at %s can't be used now: %s", self.place.described, _kind(error))
        return gone

    def _returned(self) -> None:
        self.up, self._half_there = True, False
        _log.warning("Redis at %s answers again", self.place.described)
        for act in self._back:
            act()


class Script:
    """A script that Redis knows by its digest once it has seen it."""

    def __init__(self, *parts: str) -> None:
        self.text = "\n".join(parts)
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, client: Any, keys: Sequence[str], *values: bytes | str | float) -> Any:
        """What it returns; on a connection of its own, for large values."""
        from redis.exceptions import NoScriptError  # noqa: PLC0415 - where no Redis is, none is

        try:
            return await client.evalsha(self.digest, len(keys), *keys, *values)
        except NoScriptError:
            return await client.eval(self.text, len(keys), *keys, *values)


async def _exchange(client: Any, commands: Sequence[Words]) -> list[Any]:
    """What Redis answers to each, in one round trip: as a pipeline of redis-py's does it, without
    what that one observes. A connection that turns out dead is tried once more."""
    pool = client.connection_pool
    connection = await pool.get_connection()
    try:
        told: list[Any] = await connection.retry.call_with_retry(
            lambda: _told(connection, commands), lambda _error: connection.disconnect()
        )
    finally:
        await pool.release(connection)
    return [_read(client, words, answer) for words, answer in zip(commands, told, strict=True)]


async def _told(connection: Any, commands: Sequence[Words]) -> list[Any]:
    from hiredis import pack_command  # noqa: PLC0415 - where no Redis is, none is loaded
    from redis.exceptions import ResponseError  # noqa: PLC0415

    await connection.send_packed_command(b"".join(map(pack_command, commands)))
    answers: list[Any] = []
    for _ in commands:
        try:
            answers.append(await connection.read_response())
        except ResponseError as error:
            answers.append(error)
    return answers


def _read(client: Any, words: Words, answer: Any) -> Any:
    read = client.response_callbacks.get(words[0])
    return answer if read is None or isinstance(answer, Exception) else read(answer)


async def _heard(subscription: Any, seconds: float) -> list[Any] | None:
    """Its next word as it came, which costs a third of what it does to have it read by redis-py;
    None: there was none for a while. A connection that is lost is not made again."""
    told: list[Any] | None = await subscription.connection.read_response(
        timeout=seconds, disconnect_on_error=False
    )
    return told


async def _unless_refused(asked: Awaitable[Result], refused: Result) -> Result:
    """Who has no room for it, or can't write a dump, refuses even a PING, and is there."""
    try:
        return await asked
    except Exception as error:
        if not _is_an_answer(error):
            raise
        return refused


Connected = tuple[Client, Callable[[], Awaitable[object]] | None]
"""A client that opens connections when it needs them, and what is to be closed besides."""


def _single(place: Place) -> Connected:
    from redis import asyncio as redis  # noqa: PLC0415 - where no Redis is, none is loaded

    connections: Client = redis
    which: dict[str, Any] = {"connection_class": connections.Connection}
    if place.path:
        which = {"connection_class": connections.UnixDomainSocketConnection, "path": place.path}
    else:
        which["host"], which["port"] = place.nodes[0]
    if place.tls:
        which["connection_class"] = connections.SSLConnection
    pool = connections.ConnectionPool(**which, db=place.database, **place.login, **_manners(place))
    return connections.Redis.from_pool(pool), None


def _by_sentinels(place: Place) -> Connected:
    from redis import asyncio as redis  # noqa: PLC0415

    patience = {"socket_timeout": KNOCK_SECONDS, "socket_connect_timeout": KNOCK_SECONDS}
    own = {**patience, **place.sentinel_login, "protocol": 2}
    sentinels: Client = redis.Sentinel
    sentinel = sentinels(list(place.nodes), sentinel_kwargs=own)
    login = {**place.login, "ssl": place.tls, "db": place.database}
    return sentinel.master_for(place.master, **login, **_manners(place)), sentinel.aclose


def _cluster(place: Place) -> Connected:
    from redis.asyncio import cluster  # noqa: PLC0415

    nodes = [cluster.ClusterNode(host, port) for host, port in place.nodes]
    made: Client = cluster.RedisCluster
    login = {**place.login, "ssl": place.tls}
    return made(startup_nodes=nodes, max_connections=2**31, **login, **_manners(place)), None


def _manners(place: Place) -> dict[str, Any]:
    """A dead connection is tried once more, nothing is waited for that `run` does not wait for."""
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    return {
        "protocol": 2,
        "driver_info": None,
        "retry": Retry(NoBackoff(), 1),
        "socket_timeout": None,
        "socket_read_size": READ_OCTETS,
        "socket_connect_timeout": KNOCK_SECONDS if place.kind == "cluster" else DEADLINE_SECONDS,
    }


_CONNECT: Final[Mapping[str, Callable[[Place], Connected]]] = {
    "single": _single,
    "sentinel": _by_sentinels,
    "cluster": _cluster,
}


def _gone(error: Exception) -> Gone:
    """What it means for whoever asked; raises what is no error of Redis."""
    from redis.exceptions import NoScriptError, RedisError  # noqa: PLC0415 - see above

    if isinstance(error, Gone):
        return type(error)(str(error))
    if isinstance(error, NoScriptError):
        return Unheard("Redis does not know this script")
    if not isinstance(error, RedisError | OSError | EOFError | TimeoutError | RuntimeError):
        raise error  # a transport that closed under the client is a RuntimeError
    if _is_an_answer(error):
        return Refused(f"Redis refused: {_kind(error)}")
    return Gone(f"Redis can't be used now: {_kind(error)}")


def _is_an_answer(error: Exception) -> bool:
    """Whether Redis is there and said no to this command alone."""
    from redis import exceptions as told  # noqa: PLC0415

    if isinstance(error, told.BusyLoadingError | told.ReadOnlyError | told.AuthenticationError):
        return False
    if isinstance(error, told.ClusterDownError | told.MasterDownError):
        return False
    return isinstance(error, told.ResponseError | told.DataError)


def _kind(error: Exception) -> str:
    """What may be told of it, and what to do: its text may hold what was sent."""
    return "no answer in time" if isinstance(error, TimeoutError) else kind_of(error)
