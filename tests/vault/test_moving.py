"""Moving a vault to another database, and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from tests.support.engines import RunningPostgres
from tests.vault.conftest import Opener
from tests.vault.words import FIRST, SECOND, backend, new_key, rows, said
from vault import (
    AlreadyExists,
    Changes,
    Invalid,
    NewToken,
    Purge,
    RolledBack,
    Secret,
    StoreUnavailable,
    Unopenable,
    Vault,
    open_vault,
    schema,
)


async def filled(vault: Vault) -> str:
    """With something in every table; the text of a token."""
    await vault.put_key(new_key())
    await vault.rotate_key("default", "openai", "default", {"key": Secret(SECOND)})
    await vault.put_key(new_key(alias="gone"))
    await vault.remove_key("default", "openai", "gone")
    await vault.apply(Changes(tuple(new_key(alias=f"a{n}", tenant="many") for n in range(5))))
    await vault.add_backend(backend())
    await vault.purge(Purge(5.0, "default"))
    new = NewToken("default", "ann", budget=5, limits=("60/minute",), calls=10**12)
    _, text = await vault.issue_token(new)
    return text


async def told(vault: Vault) -> list[object]:
    """All that a vault says of itself."""
    return [
        await vault.list_keys(),
        await vault.list_tokens(),
        await vault.list_backends(),
        await vault.purges(),
        [entry for entry in await vault.audit() if entry.action != "vault migrate"],
    ]


async def test_a_vault_goes_to_a_server_and_back(
    vault: Vault, data: Path, clock: FakeClock, postgres: RunningPostgres, opener: Opener
) -> None:
    """All that it holds; it opens under the same master key, and goes on there."""
    text, url = await filled(vault), postgres.another()
    before = await told(vault)
    moved = await vault.move(url)
    assert (moved.left, moved.rows["key_versions"]) == (str(data / "vault.db"), 7)
    there = await open_vault(data, {}, clock, url=url)
    assert await told(there) == before
    assert (await there.verify_audit()).faults == () == tuple(await there.examine())
    assert (await there.audit(1))[0].action == "vault migrate"
    assert await there.verify_token(text.encode()) is not None
    for key in await there.list_keys():
        assert (await there.open_key(key.ref))["key"].reveal() in (FIRST, SECOND)
    await there.add_backend(backend("/more/"))  # its number is the next one
    before = await told(there)
    await there.move(data / "vault.db")
    with pytest.raises(StoreUnavailable, match="moved from this database"):
        await open_vault(data, {}, clock, url=url)
    await there.close()
    back = await opener()
    assert await told(back) == before
    assert (await back.verify_audit()).faults == () == tuple(await back.examine())


async def test_the_database_that_was_left_is_refused(
    vault: Vault, data: Path, postgres: RunningPostgres, opener: Opener
) -> None:
    """By who has it open, for what it holds and for changes; and by who opens it."""
    text, other = await filled(vault), await opener()
    await vault.move(postgres.another())
    for act in (
        lambda: other.put_key(new_key(alias="more")),
        other.refresh,
        lambda: other.verify_token(text.encode()),
        other.list_keys,
        opener,
    ):
        with pytest.raises(StoreUnavailable, match="moved from this database to another one by k"):
            await act()


async def test_an_earlier_copy_of_the_same_vault_makes_room(
    vault: Vault, data: Path, clock: FakeClock, postgres: RunningPostgres
) -> None:
    """Where a run was killed between the two databases; a newer one does not, nor another vault."""
    url = postgres.another()
    await filled(vault)
    await vault.move(url)
    left = f"UPDATE alembic_version SET version_num = '{schema.HEAD}'"  # as if killed before it
    rows(data, left)
    await vault.refresh()
    await vault.move(url)  # with nothing changed since, the copy has a row more
    rows(data, left)
    await vault.refresh()
    await vault.put_key(new_key(alias="since"))
    await vault.put_key(new_key(alias="since2"))
    moved = await vault.move(url)
    there = await open_vault(data, {}, clock, url=url)
    assert "since" in {key.ref.alias for key in await there.list_keys()}
    assert moved.entered == url.replace("keyrelay@", "")
    for _ in range(3):
        await there.purge(Purge(7.0))
    rows(data, left)
    await there.close()
    with pytest.raises(RolledBack, match="older one"):  # the anchor knows better
        await open_vault(data, {}, clock)
    await vault.refresh()
    with pytest.raises(AlreadyExists, match=r"the same vault is in .* and newer"):
        await vault.move(url)
    other = postgres.another()
    elsewhere = await open_vault(data.parent / "else", {}, clock, url=other, create=True)
    await elsewhere.close()
    with pytest.raises(AlreadyExists, match="another vault"):
        await vault.move(other)
    assert await vault.list_keys()


async def test_a_vault_that_is_not_sound_is_not_moved(
    vault: Vault, data: Path, postgres: RunningPostgres
) -> None:
    """It stays as it is; the other database as empty as it was."""
    url = postgres.another()
    await filled(vault)
    rows(data, "UPDATE tokens SET role = 'admin'")
    rows(data, "DELETE FROM audit WHERE id = 2")
    with pytest.raises(Unopenable, match=r"nothing was moved, for token .* and 1 more; see keyr"):
        await vault.move(url)
    assert await vault.list_keys()
    assert said(url, "SELECT count(*) FROM keys") == [(0,)]


async def test_a_target_that_can_not_be_made_ready_gets_nothing(
    vault: Vault, postgres: RunningPostgres
) -> None:
    """The vault stays where it is, goes on there, and may be moved later."""
    url, asked = postgres.another(), list[str]()
    await filled(vault)

    async def ready() -> None:
        asked.append("ready")
        if len(asked) == 1:
            raise LookupError

    with pytest.raises(LookupError):
        await vault.move(url, ready)
    await vault.put_key(new_key(alias="later"))
    assert (await vault.move(url, ready)).rows["tokens"] == 1
    assert len(asked) == 2


async def test_what_is_no_other_database_is_refused(
    vault: Vault, data: Path, postgres: RunningPostgres
) -> None:
    """The same one, one of another release, a URL of nothing, a server that is not there."""
    url = postgres.another()
    said(url, "CREATE TABLE alembic_version (version_num text)")
    said(url, "INSERT INTO alembic_version VALUES ('9999')")
    with pytest.raises(Invalid, match="stands at revision 9999"):
        await vault.move(url)
    with pytest.raises(Invalid, match=r"is in .* already"):
        await vault.move(data / "vault.db")
    with pytest.raises(Invalid, match="can't be used"):
        await vault.move("nonsense")
    with pytest.raises(StoreUnavailable, match="connection refused"):
        await vault.move("postgresql://u:sk-canary-0@127.0.0.1:1/x")
