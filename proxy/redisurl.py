"""The URL of a Redis, single, behind sentinels or a cluster, read into its parts; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

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


REMEDIES: Final[Mapping[str, str]] = {
    "AuthenticationError": "put the user and password of cache.url right",
    "NoPermissionError": "give its user the rights that docs/engines.md lists",
    "OutOfMemoryError": "raise its maxmemory, or set maxmemory-policy volatile-lru",
    "ReadOnlyError": "it is a replica: name the one that takes writes in cache.url",
    "BusyLoadingError": "it reads its data, wait for it",
    "MasterNotFoundError": "no sentinel knows this master: put cache.url right, or start it",
    "ClusterDownError": "its cluster lacks nodes: start them",
    "ConnectionError": "look whether it runs, and at host and port of cache.url",
}
"""What to do, by the name of what the driver raises."""

REFUSALS: Final[Mapping[str, str]] = {
    "MISCONF": "it can't write its dump: look at its disk, or set stop-writes-on-bgsave-error no",
    "NOREPLICAS": "too few replicas follow it: start them, or lower its min-replicas-to-write",
    "BUSY": "it is busy with a script: wait for it, or end that with SCRIPT KILL",
    "The user executing the script": REMEDIES["NoPermissionError"],
}
"""What to do, by how an answer begins that the driver has no name for."""


def kind_of(error: BaseException) -> str:
    """What the driver raises, by name, and what to do about it; nothing else of its text."""
    names, text = [kind.__name__ for kind in type(error).__mro__], str(error)
    named = [REMEDIES[name] for name in names if name in REMEDIES]
    begun = [REFUSALS[begin] for begin in REFUSALS if text.startswith(begin)]
    return " ".join((names[0], *(f"({remedy})" for remedy in (*named, *begun)[:1])))
