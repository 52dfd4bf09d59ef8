"""Several Redis servers that work as one: behind a sentinel, and as a cluster of three."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

from tests.support.engines import RunningRedis, _folder, _serving, _started, redis_running
from tests.support.examples import free_port
from tests.support.programs import need

PATIENCE_SECONDS: Final = 60.0
SLOTS: Final = 16384
MASTER: Final = "main"
PASSWORD: Final = "password-of-redis"
SENTINELS: Final = "password-of-sentinels"


class Watched(NamedTuple):
    """A master, its replica, and the sentinel that knows both; each kind with its password."""

    master: RunningRedis
    replica: RunningRedis
    sentinel: RunningRedis

    @property
    def url(self) -> str:
        """For `cache.url`."""
        host = f"127.0.0.1:{self.sentinel.port}"
        return f"redis+sentinel://:{PASSWORD}@{host}/{MASTER}/0?sentinel_password={SENTINELS}"

    def ask(self, *words: str) -> str:
        """What the sentinel says."""
        return self.sentinel.say("-a", SENTINELS, "--no-auth-warning", "sentinel", *words)

    @property
    def leads(self) -> int:
        """The port of whoever is the master now."""
        return int(self.ask("get-master-addr-by-name", MASTER).split()[-1])

    def fail_over(self) -> None:
        """The master dies, and the replica takes its place."""
        self.master.kill()
        until(lambda: self.leads == self.replica.port)


@contextmanager
def sentinel_running() -> Iterator[Watched]:
    """Skips where there is no Redis."""
    locked = ("--requirepass", PASSWORD, "--masterauth", PASSWORD)
    with ExitStack() as stack:
        master = stack.enter_context(redis_running(*locked, "--repl-diskless-sync-delay", "0"))
        leads = ("--replicaof", f"127.0.0.1 {master.port}")
        replica = stack.enter_context(redis_running(*locked, *leads))
        until(lambda: "master_link_status:up" in _told(replica))  # a sentinel seldom looks again
        found = Watched(master, replica, stack.enter_context(_sentinel(master)))
        until(lambda: f"\n{replica.port}\n" in found.ask("replicas", MASTER))
        yield found


@contextmanager
def _sentinel(master: RunningRedis) -> Iterator[RunningRedis]:
    program, port = need("redis-server", "valkey-server"), free_port()
    with _folder() as folder:
        file = folder / "sentinel.conf"
        file.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\nrequirepass {SENTINELS}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 1\n"
            f"sentinel auth-pass {MASTER} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {MASTER} 500\n"
            f"sentinel failover-timeout {MASTER} 5000\n"
        )
        file.chmod(0o666)
        command = [program, str(file), "--sentinel"]
        yield from _serving(RunningRedis(_started(command, folder), port, folder, command))


def _told(one: RunningRedis) -> str:
    return one.say("-a", PASSWORD, "--no-auth-warning", "info", "replication")


@contextmanager
def cluster_running() -> Iterator[list[RunningRedis]]:
    """Three masters with a third of the slots each; skips where there is no Redis."""
    told = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    with ExitStack() as stack:
        nodes = [stack.enter_context(redis_running(*told)) for _ in range(3)]
        for number, node in enumerate(nodes):
            first, last = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
            node.say("cluster", "addslotsrange", str(first), str(last))
            node.say("cluster", "meet", "127.0.0.1", str(nodes[0].port))
        for node in nodes:
            until(lambda at=node: _whole(at))  # type: ignore[misc]
        yield nodes


def _whole(node: RunningRedis) -> bool:
    told = node.say("cluster", "info")
    return "cluster_state:ok" in told and "cluster_known_nodes:3" in told


def until(holds: Callable[[], bool]) -> None:
    """Waits for servers that settle something among themselves."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > ends:
            raise TimeoutError("the servers did not settle it")
        time.sleep(0.05)
