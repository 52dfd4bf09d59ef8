"""An older database is seen: its number of changes is authenticated, and the anchor knows it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from tests.vault.words import FIRST, SECOND, new_key, put_generation, rows, unmark
from vault import NewToken, RolledBack, Secret, StoreUnavailable, Vault, open_vault
from vault.anchor import Anchor, Point
from vault.core import Core, Moment
from vault.datakeys import DataKeys
from vault.mastersource import MasterKeySource
from vault.store import Store

ACCEPT = "go on with: keyrelay serve --accept-rollback"


async def change(data: Path, environ: dict[str, str] | None = None, **options: bool) -> None:
    vault = await open_vault(data, environ or {}, FakeClock(), **options)
    await vault.issue_token(NewToken("default", f"t{vault.generation}"))
    await vault.close()


def numbers(data: Path, anchor: Path | None = None) -> tuple[int, int]:
    ((generation,),) = rows(data, "SELECT generation FROM vault_state")
    return generation, int((anchor or data / "vault.anchor").read_text().split()[3])


async def test_the_anchor_follows_every_change(vault: Vault, data: Path) -> None:
    """Private, beside the database if nobody says where else."""
    await vault.put_key(new_key())
    before = numbers(data)
    assert before[0] == before[1]
    await vault.rotate_master(reseal=True)
    assert numbers(data) == (before[0] + 4, before[1] + 4)
    assert (data / "vault.anchor").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("outside", [False, True])
async def test_an_older_database_does_not_start(data: Path, tmp_path: Path, outside: bool) -> None:
    """Unless that is accepted; then it counts on from the greater number, and is in the audit."""
    anchor = tmp_path / "anchor" if outside else data / "vault.anchor"
    environ = {"KEYRELAY_ANCHOR_FILE": str(anchor)} if outside else {}
    await change(data, environ, accept_rollback=True)
    shutil.copy(data / "vault.db", tmp_path / "old")
    await change(data, environ)
    await change(data, environ)
    newest = numbers(data, anchor)[1]
    shutil.copy(tmp_path / "old", data / "vault.db")
    with pytest.raises(RolledBack, match=f"is an older one.* {newest}; .*{ACCEPT}"):
        await open_vault(data, environ, FakeClock())
    vault = await open_vault(data, environ, FakeClock(), accept_rollback=True)
    assert [entry.action for entry in await vault.audit(1)] == ["rollback accept"]
    assert vault.generation == newest + 1
    await vault.close()
    assert numbers(data, anchor) == (newest + 1, newest + 1)
    await change(data, environ)


async def test_a_whole_old_data_directory_is_seen_by_an_outside_anchor(
    data: Path, tmp_path: Path
) -> None:
    """Which no copy of the data directory brings back."""
    environ = {"KEYRELAY_ANCHOR_FILE": str(tmp_path / "anchor")}
    await change(data, environ, accept_rollback=True)
    shutil.copytree(data, tmp_path / "old")
    await change(data, environ)
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "old", data)
    with pytest.raises(RolledBack, match="is an older one"):
        await open_vault(data, environ, FakeClock())


async def test_no_number_can_be_forged(data: Path) -> None:
    """Neither in the database nor in the anchor, nor by taking the seal away."""
    await change(data)
    old = (data / "vault.db").read_bytes()
    await change(data)
    anchor = (data / "vault.anchor").read_bytes()
    for statement in (
        "UPDATE vault_state SET generation = generation + 9",
        "UPDATE vault_state SET generation = 'x'",
        "UPDATE vault_state SET audit_rows = audit_rows - 1",
        "UPDATE vault_state SET audit_rows = 'x'",
        "UPDATE vault_state SET audit_link = NULL",
        "UPDATE vault_state SET audit_link = zeroblob(32)",
        "UPDATE vault_state SET audit_link = 5",
        "UPDATE vault_state SET audit_rows = NULL, audit_link = NULL",
        "UPDATE vault_state SET seal = NULL",
        "UPDATE vault_state SET seal = 'text'",
        "UPDATE vault_state SET seal = zeroblob(32)",
        "DELETE FROM vault_state",
    ):
        (data / "vault.db").write_bytes(old)
        rows(data, statement)
        with pytest.raises(RolledBack, match=f"row vault_state .*{ACCEPT}"):
            await open_vault(data, {}, FakeClock())
    for forged in (b"x", anchor.replace(b"anchor 2 0", b"anchor 2 1"), anchor + b"x"):
        (data / "vault.anchor").write_bytes(forged)
        with pytest.raises(RolledBack, match=f"the anchor .* was changed, or .*{ACCEPT}"):
            await open_vault(data, {}, FakeClock())
    (data / "vault.db").write_bytes(old)
    (data / "vault.anchor").write_bytes(b"forged")
    await change(data, accept_rollback=True)
    await change(data)


@pytest.mark.parametrize("anchored", [True, False])
async def test_a_state_that_was_taken_out_is_named_and_can_be_accepted(
    data: Path, anchored: bool
) -> None:
    """The row as a whole: the rest then counts as it stands, and all goes on from there."""
    await change(data)
    ((before, master, *_),) = rows(data, "SELECT generation, master_id FROM vault_state")
    rows(data, "DELETE FROM vault_state")
    if not anchored:
        (data / "vault.anchor").unlink()
    with pytest.raises(RolledBack, match=f"row vault_state .*{ACCEPT}"):
        await open_vault(data, {}, FakeClock())
    assert rows(data, "SELECT count(*) FROM vault_state") == [(0,)]
    await change(data, accept_rollback=True)
    assert rows(data, "SELECT master_id, length(seal) FROM vault_state") == [(master, 32)]
    assert numbers(data)[0] == numbers(data)[1]
    assert not anchored or numbers(data)[0] > before
    vault = await open_vault(data, {}, FakeClock())
    assert (await vault.rotate_master(reseal=True)).rewrapped == 2
    assert await vault.examine() == []
    await vault.close()


async def test_a_running_server_refuses_a_state_that_is_gone(vault: Vault, data: Path) -> None:
    """Its changes too: none goes unnumbered."""
    rows(data, "DELETE FROM vault_state")
    for act in (vault.refresh, lambda: vault.put_key(new_key())):
        with pytest.raises(RolledBack, match="row vault_state"):
            await act()


async def test_an_anchor_that_is_missing_outside_stops(data: Path, tmp_path: Path) -> None:
    """Its loss is not to be told from a theft of the disk; beside the database it is made anew."""
    await change(data)
    with pytest.raises(RolledBack, match=f"there is no anchor .*: move the one of .*{ACCEPT}"):
        await open_vault(data, {"KEYRELAY_ANCHOR_FILE": str(tmp_path / "a")}, FakeClock())
    (data / "vault.anchor").rename(tmp_path / "a")
    await change(data, {"KEYRELAY_ANCHOR_FILE": str(tmp_path / "a")})
    await change(data)
    assert numbers(data)[0] == numbers(data)[1]


async def test_a_new_vault_makes_its_anchor_outside(tmp_path: Path) -> None:
    """Nothing is to be accepted where nothing was."""
    environ = {"KEYRELAY_ANCHOR_FILE": str(tmp_path / "anchor")}
    vault = await open_vault(tmp_path / "data", environ, FakeClock(), create=True)
    await vault.close()
    await change(tmp_path / "data", environ)
    assert not (tmp_path / "data/vault.anchor").exists()


async def test_a_vault_of_an_older_release_is_taken_over(data: Path) -> None:
    """It had neither seal nor anchor."""
    unmark(data)
    rows(data, "UPDATE vault_state SET seal = NULL")
    (data / "vault.anchor").unlink(missing_ok=True)
    await change(data)
    assert numbers(data)[0] == numbers(data)[1]
    await change(data)


async def test_what_is_taken_in_with_an_older_database_is_told(data: Path) -> None:
    """Its rows count as they stand where nobody can vouch for them; how many is in the log."""
    await change(data)
    rows(data, "UPDATE vault_state SET seal = zeroblob(32)")
    vault = await open_vault(data, {}, FakeClock(), accept_rollback=True)
    said = [(entry.action, entry.subject) for entry in await vault.audit(2)]
    assert said[1] == ("register begin", "1 earlier rows")
    assert said[0][0] == "rollback accept"
    await vault.close()


@pytest.mark.parametrize("forged", [False, True])
async def test_a_running_server_serves_nothing_of_an_older_database(
    vault: Vault, data: Path, opener, forged: bool
) -> None:
    """Neither what it held nor what stands there, and it changes nothing."""
    ref = (await vault.put_key(new_key())).ref
    await vault.open_key(ref)
    ((generation,),) = rows(data, "SELECT generation FROM vault_state")
    if forged:
        rows(data, "UPDATE vault_state SET generation = ?", generation + 1)
    else:
        put_generation(data, generation - 1)
    for act in (vault.refresh, vault.refresh, vault.check, lambda: vault.open_key(ref)):
        with pytest.raises(RolledBack):
            await act()
    with pytest.raises(RolledBack):
        await vault.put_key(new_key(SECOND, alias="b"))
    assert vault.generation == -1
    put_generation(data, generation)
    assert await vault.refresh()
    assert await vault.open_key(ref) == {"key": Secret(FIRST)}
    assert vault.generation == generation


async def test_an_anchor_that_cannot_be_used_is_unavailable(
    vault: Vault, data: Path, tmp_path: Path
) -> None:
    """The reason is the system's."""
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "nowhere/anchor", tmp_path / "folder"):
        unmark(data)
        rows(data, "UPDATE vault_state SET seal = NULL")
        with pytest.raises(StoreUnavailable, match=r"the anchor .* can't be used"):
            await open_vault(data, {"KEYRELAY_ANCHOR_FILE": str(place)}, FakeClock())


async def test_a_change_stands_though_its_anchor_cannot_be_written(
    vault: Vault, data: Path
) -> None:
    """Who heard of an error would make it again, and a new token's text would be lost. It is told
    until the anchor has caught up; with the next change at the latest it has."""
    assert await vault.catch_up() == ""
    anchor = data / "vault.anchor"
    for mend in (vault.catch_up, lambda: vault.revoke_token("default", "ada")):
        old = anchor.read_bytes()
        anchor.unlink()
        anchor.mkdir()
        _, text = await vault.issue_token(NewToken("default", "ada"))
        assert await vault.verify_token(text.encode()) is not None
        for _ in range(2):
            assert str(anchor) in await vault.catch_up()
        anchor.rmdir()
        anchor.write_bytes(old)
        await mend()
        assert await vault.catch_up() == ""
        assert numbers(data)[0] == numbers(data)[1]
        await change(data)
        await vault.refresh()
        await vault.remove_tenant("default")


async def test_an_empty_anchor_is_one_that_is_being_made(data: Path, tmp_path: Path) -> None:
    """Two processes may make a vault at once. Outside it is missing, as if it were not there."""
    await change(data)
    (data / "vault.anchor").write_bytes(b"")
    await change(data)
    assert (data / "vault.anchor").stat().st_size > 0
    (tmp_path / "anchor").write_bytes(b"")
    with pytest.raises(RolledBack, match="there is no anchor"):
        await open_vault(data, {"KEYRELAY_ANCHOR_FILE": str(tmp_path / "anchor")}, FakeClock())


async def test_whoever_counts_on_before_the_first_seal_seals(vault: Vault, data: Path) -> None:
    """Two processes make a vault: one has made the data keys, the other takes the next number."""
    rows(data, "UPDATE vault_state SET seal = NULL")
    source = MasterKeySource.find(data, {})
    store = Store.at(data / "vault.db")
    keys, moment = DataKeys(source, source.read()), Moment(Anchor.find(data, {}))
    core = Core(store, keys, FakeClock(), "second", moment)
    assert await core.refresh()
    async with core.changing() as making:
        await making.record("data-key make", "", "other")
    await store.close()
    assert rows(data, "SELECT length(seal) FROM vault_state") == [(32,)]
    await change(data)


def test_an_anchor_that_cannot_be_made_durable_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not said to be there."""

    def fails(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("vault.files.sync_directory", fails)
    with pytest.raises(StoreUnavailable, match="input/output error"):
        Anchor(tmp_path / "anchor", True).advance(Point(1, 0), bytes(32))


async def test_an_anchor_only_grows(vault: Vault, tmp_path: Path) -> None:
    """Whoever comes late with a lower number changes nothing."""
    anchor = Anchor(tmp_path / "anchor", True)
    anchor.advance(Point(5, 7), bytes(32))
    anchor.advance(Point(4, 9), bytes(32))
    anchor.advance(Point(5, 6), bytes(32))
    assert b" 00000000000000000005 00000000000000000007 " in (anchor.octets() or b"")
    anchor.advance(Point(5, 8), bytes(32))
    anchor.advance(Point(6, 0), bytes(32))
    assert b" 00000000000000000006 00000000000000000000 " in (anchor.octets() or b"")
    anchor.reset(Point(1, 0), bytes(32))
    assert b" 00000000000000000001 " in (anchor.octets() or b"")
    with pytest.raises(StoreUnavailable):
        Anchor(tmp_path / "nowhere/anchor", True).reset(Point(1, 0), bytes(32))
