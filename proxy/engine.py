"""One Redis for all rooms that share something between processes: deadlines, and a breaker.

Nobody waits long for a Redis that is gone: a command has a deadline, and one that failed keeps the
others from asking for a while. When the while is over one asks, and if it is answered, all do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from proxy.clock import Clock

Client = Any
"""redis-py's, for one Redis or a cluster: they have no type in common."""

Result = TypeVar("Result")
Ask = Callable[[Client], Awaitable[Result]]

DEADLINE_SECONDS: Final = 1.0
"""How long a command may take, if its room does not say otherwise."""

PAUSE_SECONDS: Final = 1.0
"""How long nobody asks after a command that failed."""

CONNECTIONS: Final = 64
"""At once, to one Redis; whoever is too many waits for one."""

SCHEMES: Final = frozenset({"redis", "rediss", "unix"})
_FORMS: Final = (
    "expected redis://HOST:PORT, rediss:// (TLS), unix:///PATH, redis+sentinel:// or"
    " redis+cluster://"
)

_log = logging.getLogger("keyrelay.engine")


class Gone(Exception):
    """Redis can't be asked now; the message is a safe sentence for the log."""


class Refused(Gone):
    """Redis is there and did not do it: it has no room, or this user may not."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Redis is. `nodes`: (host, port) of the sentinels, or of some of a cluster; `master`:
    the name that the sentinels know it by. The URL may hold a password."""

    kind: str
    described: str
    url: str = field(repr=False)
    nodes: tuple[tuple[str, int], ...] = ()
    master: str = ""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: bool = False

    @classmethod
    def of(cls, url: str) -> Place:
        """Reads `redis://`, `rediss://` and `unix://` as redis-py does, and with `+sentinel`
        (`redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/MASTER/DATABASE`) or `+cluster`.

        Raises ValueError with a sentence that does not show it.
        """
        scheme, _, rest = url.partition("://")
        plain, _, kind = scheme.partition("+")
        if plain not in SCHEMES or kind not in {"", "sentinel", "cluster"} or not rest:
            raise ValueError(_FORMS)
        if kind:
            return cls._of_several(url, plain, kind)
        parts = urlsplit(url)
        try:
            where = parts.path if plain == "unix" else f"{parts.hostname}:{parts.port or 6379}"
        except ValueError:
            raise ValueError("expected a port from 1 to 65535") from None
        return cls("single", f"{plain}://{where}", url)

    @classmethod
    def _of_several(cls, url: str, plain: str, kind: str) -> Place:
        authority, *path = url.partition("://")[2].partition("?")[0].split("/")
        whose, _, hosts = authority.rpartition("@")
        user, _, password = whose.partition(":")
        nodes = tuple(_node(one, 26379 if kind == "sentinel" else 6379) for one in hosts.split(","))
        if kind == "sentinel" and not (path and path[0]):
            raise ValueError("expected the name of the master behind the sentinels' hosts")
        rest = path[1:] if kind == "sentinel" else path
        told = ",".join(f"{host}:{port}" for host, port in nodes)
        return cls(
            kind,
            f"{plain}+{kind}://{told}",
            url,
            nodes,
            master=path[0] if kind == "sentinel" else "",
            user=unquote(user) or None,
            password=unquote(password) or None,
            database=_database(rest),
            tls=plain == "rediss",
        )


class Engine:
    """One Redis, single, behind sentinels or a cluster.

    `prefix` stands before every name in it, so that two installs can share one.
    """

    def __init__(self, place: Place, prefix: str, clock: Clock) -> None:
        self.place = place
        self._prefix = prefix
        self._clock = clock
        self._client: Client | None = None
        self._ask_at = 0.0
        self._asking = False
        self._back: list[Callable[[], None]] = []
        self.up = True

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
        probing, self._asking = not self.up, not self.up
        try:
            async with asyncio.timeout(seconds):
                found = await ask(self.client)
        except Exception as error:
            raise self._failed(error) from error
        finally:
            if probing:
                self._asking = False
        if not self.up:
            self._returned()
        return found

    @property
    def client(self) -> Client:
        """redis-py's own, for what lasts, as subscriptions. Its errors are the caller's."""
        if self._client is None:
            self._client = _connected(self.place)
        return self._client

    async def start(self) -> None:
        """Nothing: connections are opened when somebody asks."""

    async def stop(self) -> None:
        """Closes every connection."""
        await self.aclose()

    async def aclose(self) -> None:
        """Closes every connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def fail(self, error: Exception) -> None:
        """Somebody saw it fail past `run`."""
        self._failed(error)

    def _failed(self, error: Exception) -> Gone:
        from redis.exceptions import RedisError  # noqa: PLC0415 - where no Redis is, none is loaded

        if not isinstance(error, RedisError | OSError | TimeoutError):
            raise error
        if _is_an_answer(error):
            return Refused(f"Redis refused: {_kind(error)}")
        self._ask_at = self._clock.monotonic() + PAUSE_SECONDS
        if self.up:
            self.up = False
            _log.error("Redis at %s can't be used now: %s", self.place.described, _kind(error))
        return Gone(f"Redis can't be used now: {_kind(error)}")

    def _returned(self) -> None:
        self.up = True
        _log.warning("Redis at %s answers again", self.place.described)
        for act in self._back:
            act()


def _connected(place: Place) -> Client:
    """A client that opens connections when it needs them, and asks once more on a dead one."""
    from redis import asyncio as redis  # noqa: PLC0415 - where no Redis is, none is loaded
    from redis.asyncio.cluster import ClusterNode  # noqa: PLC0415
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    common: dict[str, Any] = {"retry": Retry(NoBackoff(), 1), "socket_timeout": None}
    if place.kind == "single":
        pools: Client = redis.BlockingConnectionPool
        pool = pools.from_url(place.url, max_connections=CONNECTIONS, timeout=None, **common)
        return redis.Redis.from_pool(pool)
    who = {"username": place.user, "password": place.password, "ssl": place.tls}
    if place.kind == "sentinel":
        sentinels: Client = redis.Sentinel
        sentinel = sentinels(list(place.nodes), sentinel_kwargs={"socket_timeout": 1.0})
        return sentinel.master_for(place.master, db=place.database, **common, **who)
    nodes = [ClusterNode(host, port) for host, port in place.nodes]
    cluster: Client = redis.RedisCluster
    return cluster(startup_nodes=nodes, max_connections=CONNECTIONS, **who)


def _is_an_answer(error: Exception) -> bool:
    """Whether Redis is there and said no to this command alone."""
    from redis import exceptions as told  # noqa: PLC0415

    if isinstance(error, told.BusyLoadingError | told.ReadOnlyError | told.AuthenticationError):
        return False
    if isinstance(error, told.ClusterDownError | told.MasterDownError):
        return False
    return isinstance(error, told.ResponseError | told.DataError)


def _kind(error: Exception) -> str:
    """What may be told of it: its text may hold what was sent."""
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__


def _node(text: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        found = parts.port or port
    except ValueError:
        raise ValueError("expected a port from 1 to 65535") from None
    if not parts.hostname:
        raise ValueError("expected HOST:PORT,HOST:PORT")
    return parts.hostname, found


def _database(path: list[str]) -> int:
    text = path[0] if path else ""
    if text and not text.isdecimal():
        raise ValueError("expected the number of a database")
    return int(text or 0)
