"""The database on a server: what it promises as SQLite's file does, and what is only its own."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from ssl import SSLCertVerificationError, SSLError

import asyncpg
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from tests.support.clock import FakeClock
from tests.support.engines import RunningPostgres, postgres_running
from tests.vault.conftest import Opener
from tests.vault.words import named, new_key, rows, said, url_of
from vault import (
    Invalid,
    NewToken,
    RolledBack,
    SchemaTooNew,
    StoreUnavailable,
    Vault,
    open_vault,
    schema,
    sessions,
)
from vault import postgres as postgres_room
from vault.store import Store, bump
from vault.tables import STATE

PASSWORD = "sk-canary-0123456789"


async def test_instances_of_two_releases_run_side_by_side(
    vault: Vault, data: Path, opener: Opener
) -> None:
    """What the newer one has made the older one reads, and would not damage."""
    ref = (await vault.put_key(new_key())).ref
    _, text_of_it = await vault.issue_token(NewToken("default", "ann"))
    rows(data, "CREATE TABLE newer (id INTEGER)")
    rows(data, "UPDATE alembic_version SET version_num = '9999'")
    await vault.refresh()
    vault._core.forget()
    assert await vault.verify_token(text_of_it.encode()) is not None
    assert "key" in await vault.open_key(ref)
    await vault.check()  # ready as before
    for act in (lambda: vault.put_key(new_key(alias="b")), lambda: vault.note([])):
        with pytest.raises(SchemaTooNew, match="revision 9999; this one goes on reading it and ch"):
            await act()
    with pytest.raises(SchemaTooNew, match="install the newer"):
        await opener()
    rows(data, "DROP TABLE newer")


async def test_a_database_that_has_lost_its_revision_says_so(
    vault: Vault, data: Path, opener: Opener
) -> None:
    """It is neither an empty one nor a newer release's."""
    rows(data, "DELETE FROM alembic_version")
    for act in (vault.refresh, lambda: vault.put_key(new_key()), opener):
        with pytest.raises(StoreUnavailable, match="alembic_version has lost its row; restore"):
            await act()
    rows(data, f"INSERT INTO alembic_version VALUES ('{schema.HEAD}')")
    await vault.put_key(new_key())


async def test_many_bring_a_database_here_at_once(postgres: RunningPostgres) -> None:
    """One does; the others wait and find it done."""
    url = postgres.another()
    stores = [Store.at(url) for _ in range(4)]
    await asyncio.gather(*(store.prepare() for store in stores))
    assert said(url, "SELECT version_num FROM alembic_version") == [(schema.HEAD,)]
    assert said(url, "SELECT count(*) FROM vault_state") == [(1,)]
    await asyncio.gather(*(store.close() for store in stores))


async def test_who_waits_too_long_to_be_alone_is_told(
    postgres: RunningPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes a vault may stand still."""
    monkeypatch.setattr(postgres_room, "_TURN_SECONDS", 0.2)
    one, other = (Store.at(postgres.url) for _ in range(2))
    async with one.alone():
        with pytest.raises(StoreUnavailable, match="another process makes a vault in it"):
            async with other.alone():
                pass
    async with other.alone():
        await one.close()
    await other.close()


async def test_a_read_is_one_snapshot_and_writes_nothing(postgres: RunningPostgres) -> None:
    """Whoever changes something meanwhile is seen by the next one."""
    store = Store.at(postgres.another())
    await store.prepare()
    generation = select(STATE.c.generation)
    async with store.reading() as connection:
        before = await connection.scalar(generation)
        async with store.writing() as other:
            await bump(other)
        assert await connection.scalar(generation) == before
    with pytest.raises(StoreUnavailable, match=r"let vault\.url name the server that takes writes"):
        async with store.reading() as connection:
            await bump(connection)
    assert (await store.state()).generation == before + 1
    await store.close()


async def test_a_commit_is_durable_whatever_the_database_says(postgres: RunningPostgres) -> None:
    """Who got an answer must not lose it to a loss of power."""
    url = postgres.another()
    postgres.say(f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = off")
    store = Store.at(url)
    async with store.reading() as connection:
        assert await connection.scalar(text("SHOW synchronous_commit")) == "on"
    await store.close()


@pytest.mark.parametrize("engine", ["postgresql"])
async def test_who_waits_too_long_for_its_turn_is_told(
    vault: Vault, data: Path, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the writer of another process, and for a connection."""
    monkeypatch.setitem(sessions._BOUNDS, "lock_timeout", "10ms")
    monkeypatch.setattr(postgres_room, "_WAIT_SECONDS", 0.05)
    other = await opener()
    async with vault._core.changing():
        with pytest.raises(
            StoreUnavailable,
            match=r"\((database is locked|.*lock timeout)\); another process .*: try again$",
        ):
            await other.put_key(new_key())
    async with asyncio.TaskGroup() as crowd:
        held = asyncio.Event()
        for _ in range(postgres_room._CONNECTIONS):
            crowd.create_task(_hold(other, held))
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match="too many are using it"):
            while True:
                await other.list_keys()
        held.set()
    await other.put_key(new_key())


async def _hold(vault: Vault, until: asyncio.Event) -> None:
    async with vault._core.reading():
        await until.wait()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nobody:{password}@127.0.0.1:{port}/postgres", 'role "nobody" does not.*correct the user'),
        ("keyrelay:{password}@127.0.0.1:{port}/nowhere", 'se "nowhere" does not.*create the dat'),
        ("keyrelay:{password}@127.0.0.1:1/postgres", "connection refused.*see that its server run"),
        ("keyrelay:{password}@127.0.0.1:1,127.0.0.1:1/x", "see that its server runs"),
        ("keyrelay:{password}@127.0.0.1:{port}/x?sslmode=require", "no TLS, which sslmode asks"),
        ("keyrelay:{password}@no.such.host.invalid/x", "address of its host is not known.*see th"),
        ("keyrelay:{password}@/x?host=/no/where", "a file that vault.url names is not there"),
        ("keyrelay:{password}@127.0.0.1:{port}/postgres?channel=on", '"channel".; take out of va'),
        (
            "keyrelay:{password}@127.0.0.1:{port}/postgres?target_session_attrs=standby",
            "no server is there as target_session_attrs asks for",
        ),
    ],
)
async def test_a_server_that_refuses_is_told_without_the_password(
    tmp_path: Path, clock: FakeClock, postgres: RunningPostgres, url: str, expected: str
) -> None:
    """What to do about it as well."""
    url = f"postgresql://{url.format(password=PASSWORD, port=postgres.port)}"
    with pytest.raises(StoreUnavailable, match=expected) as caught:
        await open_vault(tmp_path / "data", {}, clock, url=url, create=True)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://[",
        f"postgresql://u:{PASSWORD}@h:port/d",
        f"postgresql://u:1/{PASSWORD}@127.0.0.1/d",
        f"postgresql://u:1@{PASSWORD}@127.0.0.1/d",
        f"postgresql://u:1#{PASSWORD}@127.0.0.1/d",
        f"postgresql://u:1?{PASSWORD}@127.0.0.1/d",
    ],
)
async def test_a_url_that_cannot_be_read_is_not_shown(
    tmp_path: Path, clock: FakeClock, url: str
) -> None:
    """Whoever reads it first."""
    with pytest.raises(Invalid, match="URL can't be read; try postgresql://U") as caught:
        await open_vault(tmp_path / "data", {}, clock, url=url, create=True)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (SSLCertVerificationError(1, "of another"), "its certificate is not accepted: expired\\)"),
        (SSLError(1, "wrong version"), "the connection was lost"),
        (
            asyncpg.CannotConnectNowError("the system starts up\nmore"),
            "the system starts up\\); see",
        ),
    ],
)
async def test_a_server_that_takes_nobody_in_is_one_that_is_lost(
    postgres: RunningPostgres,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    expected: str,
) -> None:
    """By its certificate, or since it starts: it may come to that while we run, so nothing is wrong
    with the URL."""

    async def refuse(*_: object, **__: object) -> None:
        raise raised

    raised.verify_message = "expired"  # type: ignore[attr-defined]
    monkeypatch.setattr("asyncpg.connect", refuse)
    with pytest.raises(StoreUnavailable, match=expected):
        await Store.at(postgres.url).state()


async def test_to_ask_whose_the_server_is_takes_an_authority(
    postgres: RunningPostgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a URL that is taken over from elsewhere seldom names it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Invalid, match="no certificate is there to tell by; add sslrootcert=FILE"):
        await Store.at(f"{postgres.url}?sslmode=verify-full").state()


async def test_an_error_shows_nothing_of_a_row(postgres: RunningPostgres) -> None:
    """The server's second line would."""
    store = Store.at(postgres.another())
    await store.prepare()
    with pytest.raises(StoreUnavailable, match="see the log of its server") as caught:
        async with store.writing() as connection:
            await connection.execute(text(f"UPDATE vault_state SET id = NULL, seal = '{PASSWORD}'"))
    assert PASSWORD not in str(caught.value)
    assert not isinstance(caught.value.__cause__, DBAPIError)
    await store.close()


@pytest.mark.parametrize("engine", ["postgresql"])
async def test_each_instance_has_an_anchor_of_its_own(
    vault: Vault, data: Path, clock: FakeClock, tmp_path: Path
) -> None:
    """It may be behind what others have done; a database older than what it has seen is refused."""
    other = Path(shutil.copytree(data, tmp_path / "other"))
    await vault.put_key(new_key())
    old = rows(data, "SELECT * FROM vault_state")
    await vault.put_key(new_key(alias="b"))
    second = await open_vault(other, {}, clock, url=url_of(data))
    await second.put_key(new_key(alias="c"))
    assert await vault.refresh()
    await vault.put_key(new_key(alias="d"))
    assert len(await second.list_keys()) == 4
    rows(data, "DELETE FROM vault_state")
    rows(data, f"INSERT INTO vault_state VALUES ({', '.join('?' * len(old[0]))})", *old[0])
    for one in (vault, second):
        with pytest.raises(RolledBack, match="replaced by an older one"):
            await one.refresh()
    await second.close()
    for one in (data, other):
        with pytest.raises(RolledBack, match="is an older one"):
            await open_vault(one, {}, clock, url=url_of(data))


@pytest.mark.parametrize("engine", ["postgresql"])
async def test_an_instance_that_only_listens_refuses_an_older_database_as_well(
    vault: Vault, data: Path, clock: FakeClock, tmp_path: Path
) -> None:
    """What it has heard of is what it has seen: also when it starts again in between."""
    other = Path(shutil.copytree(data, tmp_path / "other"))
    listens = await open_vault(other, {}, clock, url=url_of(data))
    old = rows(data, "SELECT * FROM vault_state")
    await vault.put_key(new_key())
    assert await listens.refresh()
    await listens.close()
    rows(data, "DELETE FROM vault_state")
    rows(data, f"INSERT INTO vault_state VALUES ({', '.join('?' * len(old[0]))})", *old[0])
    with pytest.raises(RolledBack, match="is an older one"):
        await open_vault(other, {}, clock, url=url_of(data))


async def test_nobody_waits_for_a_server_that_is_gone(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks while it is silent is told once a look has found it so; then all at once. It comes
    back by itself, and so it is after a kill, where every connection is broken."""
    monkeypatch.setattr(postgres_room, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(postgres_room, "PAUSE_SECONDS", 0.2)
    with postgres_running() as server:
        vault = await open_vault(tmp_path / "data", {}, clock, url=server.url, create=True)
        await vault.put_key(new_key())
        server.pause()
        crowd = [asyncio.create_task(vault.list_keys()) for _ in range(9)]
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match="can't be used now"):
            await vault.refresh()
        for one in await asyncio.gather(*crowd, return_exceptions=True):
            assert isinstance(one, StoreUnavailable)
        with pytest.raises(StoreUnavailable, match="can't be used now"):
            await vault.open_key(named())
        server.go_on()
        await _until_listed(vault)
        server.kill()
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="see that its server runs"):
                await vault.list_keys()
        server.start_again()
        await _until_listed(vault)
        assert not await vault.refresh()
        assert (await vault.verify_audit()).faults == ()
        await vault.close()


async def _until_listed(vault: Vault) -> None:
    """One in a while asks, although nobody looks for changes."""
    async with asyncio.timeout(50):
        while True:
            try:
                assert len(await vault.list_keys()) == 1
            except StoreUnavailable:
                await asyncio.sleep(0.05)
            else:
                return
