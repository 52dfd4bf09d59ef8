"""One Redis for all rooms that share something between processes: deadlines, and a breaker.

Nobody waits long for a Redis that is gone: a command has a deadline, and one that failed keeps the
others from asking for a while. When the while is over one asks, and if it is answered, all do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from proxy.clock import Clock

Client = Any
"""redis-py's, for one Redis or a cluster: they have no type in common."""

Result = TypeVar("Result")
Ask = Callable[[Client], Awaitable[Result]]

DEADLINE_SECONDS: Final = 1.0
"""How long a command may take, if its room does not say otherwise."""

PAUSE_SECONDS: Final = 1.0
"""How long nobody asks after a command that failed."""

AT_ONCE: Final = 64
"""Commands under way; whoever is too many waits, within the deadline."""

KNOCK_SECONDS: Final = 0.3
"""For one node of several to answer: so that another is asked within the deadline."""

PORTS: Final = MappingProxyType({"single": 6379, "sentinel": 26379, "cluster": 6379})
FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""What may stand behind the `?`: the files of TLS, and who comes to the sentinels."""

_SENTINELS: Final = ("sentinel_username", "sentinel_password")
_KINDS: Final = ("", "+sentinel", "+cluster")
_FORMS: Final = (
    "expected redis://HOST:PORT, rediss:// (TLS), unix:///PATH, redis+sentinel:// or"
    " redis+cluster://"
)

_SCHEMES: Final = frozenset(
    {"unix", *(f"{plain}{kind}" for plain in ("redis", "rediss") for kind in _KINDS)}
)

_log = logging.getLogger("keyrelay.engine")


class Gone(Exception):
    """Redis can't be asked now; the message is a safe sentence for the log."""


class Refused(Gone):
    """Redis is there and did not do it: it has no room, or this user may not."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Redis is, and who comes: read from a URL that may hold a password.

    `kind`: single, sentinel or cluster. `nodes`: (host, port) of the Redis, of the sentinels, or of
    some of a cluster; none for a socket in the file system, which is `path`. `master`: the name
    that the sentinels know it by. `options`: the files of TLS, and the sentinels' own password.
    """

    kind: str
    scheme: str
    nodes: tuple[tuple[str, int], ...] = ()
    path: str = ""
    master: str = ""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, url: str) -> Place:
        """Reads `redis://USER:PASSWORD@HOST:PORT/DATABASE`, `rediss://` (TLS) and
        `unix://USER:PASSWORD@/PATH?db=DATABASE`; `redis+sentinel://` with the hosts of sentinels, a
        comma between them, and `/MASTER/DATABASE`; `redis+cluster://` with hosts alone.

        Raises ValueError with a sentence that does not show it.
        """
        scheme, _, rest = url.partition("://")
        plain, _, kind = scheme.partition("+")
        if scheme not in _SCHEMES or not rest:
            raise ValueError(_FORMS)
        where, _, query = rest.partition("?")
        authority, _, path = where.partition("/")
        whose, _, hosts = authority.rpartition("@")
        user, _, password = whose.partition(":")
        options = _options(query, plain, kind)
        kind = kind or "single"
        nodes: tuple[tuple[str, int], ...] = ()
        socket = ""
        if plain == "unix":
            socket, number, master = _socket(hosts, path), options.pop("db", ""), ""
        else:
            nodes = tuple(_node(one, PORTS[kind]) for one in hosts.split(","))
            master, number = _behind(kind, path, nodes)
        return cls(
            kind,
            plain,
            nodes,
            socket,
            master,
            unquote(user) or None,
            unquote(password) or None,
            _database(number),
            options,
        )

    @property
    def described(self) -> str:
        """For people and logs: no user, no password."""
        if self.path:
            return f"unix://{self.path}"
        scheme = self.scheme if self.kind == "single" else f"{self.scheme}+{self.kind}"
        return f"{scheme}://{','.join(_shown(host, port) for host, port in self.nodes)}"

    @property
    def login(self) -> dict[str, Any]:
        """Who comes, as redis-py wants it, and how it knows that it came to the right place."""
        files = {name: self.options[name] for name in FILES if name in self.options}
        return {"username": self.user, "password": self.password, **files}

    @property
    def sentinel_login(self) -> dict[str, Any]:
        """The same for the sentinels, who know other users."""
        user, password = (self.options.get(name) for name in _SENTINELS)
        files = {name: self.options[name] for name in FILES if name in self.options}
        return {"username": user, "password": password, "ssl": self.tls, **files}

    @property
    def tls(self) -> bool:
        """Whether it is spoken over TLS."""
        return self.scheme == "rediss"


class Engine:
    """One Redis, single, behind sentinels or a cluster.

    `prefix` stands before every name in it, so that two installs can share one. `up`: the last
    command was answered, or none was sent; `failures`: how many were not.
    """

    def __init__(self, place: Place, prefix: str, clock: Clock) -> None:
        self.place = place
        self._prefix = prefix
        self._clock = clock
        self._client: Client | None = None
        self._closing: Callable[[], Awaitable[object]] | None = None
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._ask_at = 0.0
        self._asking = False
        self._back: list[Callable[[], None]] = []
        self.up = True
        self.failures = 0

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
        client, probing = self.client, not self.up
        self._asking = probing
        try:
            async with asyncio.timeout(seconds), self._turns:
                found = await ask(client)
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
            self._client, self._closing = _CONNECT[self.place.kind](self.place)
        return self._client

    async def start(self) -> None:
        """Loads what is needed: connections are opened when somebody asks."""
        _ = self.client

    async def stop(self) -> None:
        """Closes every connection."""
        await self.aclose()

    async def aclose(self) -> None:
        """Closes every connection."""
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
        from redis.exceptions import RedisError  # noqa: PLC0415 - where no Redis is, none is loaded

        if not isinstance(error, RedisError | OSError | TimeoutError):
            raise error
        if _is_an_answer(error):
            return Refused(f"Redis refused: {_kind(error)}")
        self.failures += 1
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
        "retry": Retry(NoBackoff(), 1),
        "socket_timeout": None,
        "socket_connect_timeout": KNOCK_SECONDS if place.kind == "cluster" else DEADLINE_SECONDS,
    }


_CONNECT: Final[Mapping[str, Callable[[Place], Connected]]] = {
    "single": _single,
    "sentinel": _by_sentinels,
    "cluster": _cluster,
}


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


def _options(query: str, plain: str, kind: str) -> dict[str, str]:
    known = FILES if plain == "rediss" else ("db",) if plain == "unix" else ()
    known = (*known, *_SENTINELS) if kind == "sentinel" else known
    found = dict(parse_qsl(query, keep_blank_values=True))
    if not found.keys() <= set(known):
        expected = ", ".join(known) or "nothing"
        raise ValueError(f"expected {expected} behind the ? of this URL")
    return found


def _socket(hosts: str, path: str) -> str:
    if hosts or not path:
        raise ValueError("expected unix:///PATH")
    return f"/{unquote(path)}"


def _behind(kind: str, path: str, nodes: tuple[tuple[str, int], ...]) -> tuple[str, str]:
    """The name of the master, and the number of the database as text."""
    if kind == "single" and len(nodes) > 1:
        raise ValueError("expected one host; redis+sentinel:// and redis+cluster:// have several")
    if kind == "cluster" and path:
        raise ValueError("expected nothing behind the hosts of a cluster")
    if kind != "sentinel":
        return "", path
    master, _, number = path.partition("/")
    if not master:
        raise ValueError("expected the name of the master behind the sentinels' hosts")
    return unquote(master), number


def _node(text: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        found = port if parts.port is None else parts.port
    except ValueError:
        raise ValueError("expected a port from 1 to 65535") from None
    if not parts.hostname:
        raise ValueError("expected HOST:PORT, and more of them behind a comma")
    if not found:
        raise ValueError("expected a port from 1 to 65535")
    return parts.hostname, found


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdigit()):
        raise ValueError("expected the number of a database")
    return int(text or 0)
