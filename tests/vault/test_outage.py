"""A database that can't be read: what was seen goes on for as long as somebody wants it to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.vault.conftest import Opener
from tests.vault.words import FIRST, named, new_key
from vault import NewToken, Secret, StoreUnavailable, Vault, sqlite


async def test_a_database_that_is_gone_is_noticed(vault: Vault, data: Path, opener: Opener) -> None:
    """An open connection would read on in a file that nobody else sees any more."""
    _, unseen = await vault.issue_token(NewToken("default", "unseen"))
    other = await opener()
    away = (data / "vault.db").rename(data / "away")
    with pytest.raises(StoreUnavailable, match=r"vault\.db is not there"):
        await other.refresh()
    with pytest.raises(StoreUnavailable, match=r"vault\.db is not there"):
        await other.verify_token(unseen.encode())
    with pytest.raises(StoreUnavailable, match=r"vault\.db is not there"):
        await other.put_key(new_key())
    assert not (data / "vault.db").exists()
    away.rename(data / "vault.db")
    assert await other.verify_token(unseen.encode()) is not None


async def test_a_database_that_goes_while_a_connection_is_made_is_noticed(
    data: Path, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That connection has a file open which is not there any more: it is not read on in it."""
    real, away = sqlite._set_pragmas, data / "away"

    def meanwhile(connection: object, record: object) -> None:
        real(connection, record)
        if (data / "vault.db-goes").exists():
            (data / "vault.db").rename(away)

    monkeypatch.setattr(sqlite, "_set_pragmas", meanwhile)
    other = await opener()
    shutil.copy(data / "vault.db", data / "copy")
    (data / "copy").replace(data / "vault.db")  # every connection is made anew
    (data / "vault.db-goes").touch()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"vault\.db is not there"):
            await other.refresh()
    away.rename(data / "vault.db")
    (data / "vault.db-goes").unlink()
    await other.refresh()


async def test_a_database_that_was_replaced_is_read(
    vault: Vault, data: Path, opener: Opener
) -> None:
    """A newer file in place of ours: what is revoked there is revoked here."""
    token, text = await vault.issue_token(NewToken("default", "ann"))
    server = await opener()
    assert await server.verify_token(text.encode()) == token
    shutil.copy(data / "vault.db", data / "copy")
    (data / "copy").replace(data / "vault.db")
    await (await opener()).revoke_token("default", "ann")
    assert await server.refresh()
    assert await server.verify_token(text.encode()) is None


async def test_what_was_seen_outlives_a_change_that_could_not_begin(
    vault: Vault, data: Path
) -> None:
    """Who fails to change something takes nothing from those who only read."""
    ref = (await vault.put_key(new_key())).ref
    token, text = await vault.issue_token(NewToken("default", "ann"))
    assert await vault.verify_token(text.encode()) == token
    await vault.open_key(ref)
    (data / "vault.db").rename(data / "away")
    with pytest.raises(StoreUnavailable):
        await vault.issue_token(NewToken("default", "bob"))
    assert await vault.verify_token(text.encode()) == token
    assert await vault.open_key(named()) == {"key": Secret(FIRST)}


async def test_after_a_lapse_nothing_is_served_until_the_database_is_read(
    vault: Vault, data: Path
) -> None:
    """Fails closed, whatever was seen; and goes on as soon as it can."""
    token, text = await vault.issue_token(NewToken("default", "ann"))
    assert await vault.verify_token(text.encode()) == token
    vault.lapse()
    assert vault.generation == -1
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="could not be read for too long"):
            await vault.verify_token(text.encode())
        (data / "vault.db").replace(data / "away")
        with pytest.raises(StoreUnavailable, match="is not there"):
            await vault.refresh()
        (data / "away").replace(data / "vault.db")
    assert await vault.refresh()
    assert await vault.verify_token(text.encode()) == token
    assert vault.generation > 0
