"""One engine for every kind of Redis: TLS, users, sockets, sentinels, a cluster."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
import trustme

from proxy.cache.commons import Overtaken
from proxy.cache.hearing import Hearing
from proxy.cache.policy import CacheSettings
from proxy.cache.redis import RedisStore
from proxy.clock import SystemClock
from proxy.engine import Engine, Gone, Place, Refused
from tests.proxy.cache.conftest import NOW, a_sealer
from tests.proxy.cache.stores import LARGE, found, put
from tests.proxy.cache.test_fence import Body, Shared
from tests.proxy.cache.test_hearing import Memory, until
from tests.support.engines import RunningRedis, redis_running
from tests.support.examples import free_port
from tests.support.redises import PASSWORD, SENTINELS, cluster_running, sentinel_running
from vault import Purge

DOCS = Path(__file__).parents[2] / "docs/engines.md"
_times = count(NOW)


@asynccontextmanager
async def engine_at(url: str) -> AsyncIterator[Engine]:
    engine = Engine(Place.of(url), "keyrelay-test", SystemClock())
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def works(engine: Engine) -> None:
    """A cache does all that it does, and hears of it."""
    store, other = (_store(engine) for _ in range(2))
    memory = Memory()
    hearing = Hearing(engine, other, memory)
    await hearing.start()
    try:
        await until(lambda: hearing.hears)
        await _used(store, other, memory)
    finally:
        await hearing.stop()


async def _used(store: RedisStore, other: RedisStore, memory: Memory) -> None:
    for number in range(6):
        await put(store, b"%d" % number, LARGE if number == 5 else b"body", tenant="t")
    await until(lambda: len(memory.forgotten) == 6)
    assert await found(store, b"5") == LARGE
    assert (await other.stats()).entries == 6
    await _fenced(store)
    await other.sweep(NOW)
    await other._registers.purge(Purge(next(_times), "t", None))
    assert (await store.stats()).entries == 0


async def _fenced(store: RedisStore) -> None:
    """The lease lies where the answer does."""
    shared = Shared(store._shelves._engine, store)
    earlier, later = await shared.lead(), await shared.lead()
    assert await shared.keep(later, Body(b"newer"))
    with pytest.raises(Overtaken):
        await shared.keep(earlier, Body(b"older"))
    assert await shared.kept() == b"newer"
    await shared.commons.aclose()


def _store(engine: Engine) -> RedisStore:
    return RedisStore(engine, a_sealer(), SystemClock(), CacheSettings())


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A purge looks once more at once."""
    monkeypatch.setattr("proxy.cache.registers.SETTLE_SECONDS", 0.0)


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[trustme.CA]:
    """One of our own; the server may read its files."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = ca.issue_cert("127.0.0.1")
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    for path in (tmp_path, *tmp_path.parents):
        if path.name.startswith(("pytest-", "popen-")):
            path.chmod(path.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)
    (tmp_path / "key.pem").chmod(0o644)
    yield ca


async def test_tls_is_spoken_and_the_server_is_checked(
    tmp_path: Path, authority: trustme.CA
) -> None:
    """By an authority of the admin's own, the name too; without it there is no connection."""
    port = free_port()
    files = [(f"--tls-{name}-file", str(tmp_path / f"{name}.pem")) for name in ("cert", "key")]
    files.append(("--tls-ca-cert-file", str(tmp_path / "ca.pem")))
    told = [word for pair in files for word in pair]
    with redis_running("--tls-port", str(port), "--tls-auth-clients", "no", *told):
        url = f"rediss://127.0.0.1:{port}"
        async with engine_at(f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}") as engine:
            await works(engine)
        for wrong in (url, f"rediss://localhost:{port}?ssl_ca_certs={tmp_path / 'ca.pem'}"):
            async with engine_at(wrong) as engine:
                with pytest.raises(Gone):
                    await engine.run(lambda client: client.ping())


async def test_a_user_needs_these_rights_and_no_others(redis: RunningRedis) -> None:
    """As docs/engines.md has them; what it may not do is an answer, no outage."""
    (line,) = re.findall(r"^ACL SETUSER relay (.*)$", DOCS.read_text(), re.MULTILINE)
    rights = line.replace("PASSWORD", PASSWORD).split()
    redis.say("acl", "setuser", "relay", *rights)
    async with engine_at(redis.url.replace("://", f"://relay:{PASSWORD}@")) as engine:
        await works(engine)
        with pytest.raises(Refused, match="NoPermission"):
            await engine.run(lambda client: client.set("elsewhere", b"1"))
        with pytest.raises(Refused, match="NoPermission"):
            await engine.run(lambda client: client.flushall())
        assert engine.up


async def test_a_socket_in_the_file_system_is_a_place() -> None:
    """With a database of its own."""
    with redis_running("--unixsocket", "relay.sock", "--unixsocketperm", "777") as running:
        url = f"unix://{running.folder}/relay.sock?db=3"
        async with engine_at(url) as engine:
            await works(engine)
            await engine.run(lambda client: client.set("x", b"1"))
        assert running.say("-n", "3", "get", "x") == "1"
        assert engine.place.described == f"unix://{running.folder}/relay.sock"


async def test_sentinels_say_who_leads_and_who_leads_next() -> None:
    """A failover costs a moment, and no restart; the sentinels have a password of their own."""
    with sentinel_running() as watched:
        async with engine_at(watched.url) as engine:
            assert PASSWORD not in f"{engine.place!r}{engine.place.described}"
            assert SENTINELS not in f"{engine.place!r}{engine.place.described}"
            await works(engine)
            await asyncio.to_thread(watched.fail_over)
            async with asyncio.timeout(60):
                while await answered(engine) != str(watched.replica.port):
                    await asyncio.sleep(0.1)
            await works(engine)
            assert engine.up


async def answered(engine: Engine) -> str:
    """The port of whoever answers and takes writes."""

    async def ask(client: object) -> str:
        await client.set("keyrelay-test:probe", b"1")  # type: ignore[attr-defined]
        return str((await client.config_get("port"))["port"])  # type: ignore[attr-defined]

    try:
        return await engine.run(ask)
    except Gone:
        return ""


async def test_a_cluster_is_one_redis() -> None:
    """Every room's names with one tag lie in one slot; what is said is heard at every node."""
    with cluster_running() as nodes:
        known = ",".join(f"127.0.0.1:{node.port}" for node in nodes[:2])
        async with engine_at(f"redis+cluster://{known}") as engine:
            await works(engine)
            for _ in range(20):
                await put(_store(engine), os.urandom(32))
        assert all(int(node.say("dbsize")) > 0 for node in nodes)
