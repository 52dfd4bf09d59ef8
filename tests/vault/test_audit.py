"""The audit log is a chain: what somebody without the keys does to it is found, and named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.attack import audit as forging
from tests.attack.audit import ACTS, Forger, forge
from tests.support.clock import FakeClock
from tests.vault.conftest import Opener
from tests.vault.words import hasher_of, new_key, open_vault, put_generation, rows, unmark
from vault import (
    AuditEntry,
    AuditFault,
    NewToken,
    RolledBack,
    Vault,
)
from vault.chain import seal_of

SHORT = {
    **ACTS,
    "each bit of each octet of each row": lambda forger: forging.flip(forger, [4], 9),
    "each bit of each octet of the sealed end": lambda forger: forging.flip_end(forger, [1], 7),
    "values of any type in every column": lambda forger: forging.put_odd_values(
        forger, [b"", 1.5, "\x00"]
    ),
}


async def issue(vault: Vault, count: int, tenant: str = "default") -> None:
    for _ in range(count):
        await vault.issue_token(NewToken(tenant, f"t{vault.generation}"))


@pytest.mark.parametrize("act", SHORT.values(), ids=SHORT)
async def test_whatever_is_done_to_a_row_is_found(act: Callable[[Forger], object]) -> None:
    """Changed, removed, exchanged, cut off, put in, or an older end: and the row is named."""
    verdict = await forge(act, 7)
    assert verdict.faults == []
    assert verdict.refused


async def test_an_untouched_log_is_intact(vault: Vault, clock: FakeClock) -> None:
    """From the first row that the making of the vault left to the last; in parts."""
    assert await vault.verify_audit() == await vault.verify_audit()
    await vault.note(AuditEntry(2.5, "x", "page sign-in", "b", str(n)) for n in range(1001))
    await vault.rotate_master(reseal=True)
    await issue(vault, 1)
    report = await vault.verify_audit()
    assert (report.rows, report.since) == (2 + 1001 + 3 + 1, clock.now())
    assert (report.faults, report.notable) == ((), ())


async def test_each_fault_is_named_and_they_are_not_mixed_up(vault: Vault, data: Path) -> None:
    """What follows a wrong row is judged by itself; many are told in part."""
    await issue(vault, 30)
    rows(data, "UPDATE audit SET link = zeroblob(32) WHERE id = 3")
    rows(data, "UPDATE audit SET actor = 'x' WHERE id = 5")
    rows(data, "DELETE FROM audit WHERE id IN (8, 9, 20)")
    assert (await vault.verify_audit()).faults == (
        AuditFault(3, "was changed"),
        AuditFault(5, "was changed"),
        AuditFault(8, "to row 9 are missing"),
        AuditFault(20, "is missing"),
    )
    rows(data, "UPDATE audit SET subject = 'x'")
    assert len((await vault.verify_audit()).faults) == 20
    rows(data, "DELETE FROM audit")
    [fault] = (await vault.verify_audit()).faults
    assert fault == AuditFault(1, "to row 32 are missing: the end was cut off")


@pytest.mark.on_file
async def test_a_row_of_another_history_is_not_taken_for_the_last(
    vault: Vault, data: Path, tmp_path: Path
) -> None:
    """After an older database was accepted there have been two rows of one number."""
    await issue(vault, 1)
    old = (data / "vault.db").read_bytes()
    await issue(vault, 1)
    [other] = rows(data, "SELECT at, actor, action, tenant, subject, link FROM audit WHERE id = 4")
    (data / "vault.db").write_bytes(old)
    again = await open_vault(data, {}, FakeClock(), accept_rollback=True)
    report = await again.verify_audit()
    assert (report.rows, report.faults) == (4, ())
    assert [entry.action for entry in report.notable] == ["rollback accept"]
    put = "UPDATE audit SET at = ?, actor = ?, action = ?, tenant = ?, subject = ?, link = ?"
    rows(data, f"{put} WHERE id = 4", *other)
    report = await again.verify_audit()
    assert report.faults == (AuditFault(4, "is not the one that was written last"),)
    await again.close()


async def test_many_append_at_once_and_the_chain_stays_one(opener: Opener) -> None:
    """Changes and notes of several openings, each as a process of its own."""
    crowd = [await opener(actor=f"w{number}") for number in range(3)]

    async def work(vault: Vault, name: str) -> None:
        for number in range(6):
            await vault.note([AuditEntry(1.0, name, "page sign-in", "b", str(number))] * 2)
            await vault.issue_token(NewToken(name, f"t{number}"))

    await asyncio.gather(*(work(vault, f"w{number}") for number, vault in enumerate(crowd)))
    report = await crowd[0].verify_audit()
    assert (report.rows, report.faults) == (2 + 3 * 6 * 3, ())


async def test_notes_change_nothing_else(opener: Opener) -> None:
    """They don't count as a change, and don't hide one that another process made."""
    vault, other = await opener(), await opener()
    before = vault.generation
    await vault.note([AuditEntry(5.0, "token x", "destination refused", "b", "h")])
    assert (vault.generation, await vault.refresh(), await other.refresh()) == (
        before,
        False,
        False,
    )
    await other.put_key(new_key())
    await vault.note([AuditEntry(6.0, "token x", "destination refused", "b", "h")])
    assert vault.generation == before
    assert await vault.refresh()
    assert next(entry.at for entry in await vault.audit(2)) == 6.0


async def test_notes_stay_whatever_becomes_of_the_anchor(data: Path, tmp_path: Path) -> None:
    """Whoever was told of an error would note them again; the anchor knows of them by and by."""
    (tmp_path / "a").mkdir()
    environ = {"KEYRELAY_ANCHOR_FILE": str(tmp_path / "a/anchor")}
    (data / "vault.anchor").rename(tmp_path / "a/anchor")
    vault = await open_vault(data, environ, FakeClock())
    (tmp_path / "a").rename(tmp_path / "b")
    await vault.note([AuditEntry(5.0, "token x", "destination refused", "b", "h")])
    assert (await vault.verify_audit()).faults == ()
    await issue(vault, 1)
    assert "can't be used" in await vault.catch_up()
    (tmp_path / "b").rename(tmp_path / "a")
    before = (tmp_path / "a/anchor").read_bytes()
    await vault.note([AuditEntry(6.0, "token x", "destination refused", "b", "h")])
    assert (tmp_path / "a/anchor").read_bytes() != before
    await vault.close()


async def test_a_row_behind_the_end_stops_changes_until_it_is_accepted(
    vault: Vault, data: Path
) -> None:
    """Nothing of ours is written beside it as if it were; then it stays, and stays named."""
    copy = "INSERT INTO audit SELECT {}, at, actor, action, tenant, subject, {} FROM audit"
    rows(data, copy.format(3, "NULL") + " WHERE id = 2")
    for act in (issue(vault, 1), vault.note([AuditEntry(1.0, "x", "y", "", "")])):
        with pytest.raises(RolledBack, match=r"behind the end .* keyrelay audit verify, and go on"):
            await act
    accepted = await open_vault(data, {}, FakeClock(), accept_rollback=False)
    await accepted.close()
    put_generation(data, 0)  # so that there is something to accept
    accepted = await open_vault(data, {}, FakeClock(), accept_rollback=True)
    report = await accepted.verify_audit()
    assert (report.rows, report.faults) == (4, (AuditFault(3, "was changed"),))
    await accepted.close()


@pytest.mark.parametrize(
    ("act", "count", "faults"),
    [
        ("UPDATE vault_state SET audit_rows = audit_rows + 1", 6, ()),
        ("DELETE FROM audit", 5, (AuditFault(1, "to row 3 are missing"),)),
        ("UPDATE vault_state SET audit_rows = NULL, audit_link = NULL", 6, ()),
    ],
)
async def test_what_is_accepted_goes_on_behind_what_is_there(
    vault: Vault, data: Path, act: str, count: int, faults: tuple[AuditFault, ...]
) -> None:
    """An end that is not ours counts for nothing; of one that is ours what is gone stays missed.
    Where nothing vouches for the rows, one says how many were taken in."""
    await issue(vault, 1)
    rows(data, act)
    if "state" not in act:
        put_generation(data, 0)
    accepted = await open_vault(data, {}, FakeClock(), accept_rollback=True)
    await issue(accepted, 1)
    report = await accepted.verify_audit()
    assert (report.rows, report.faults) == (count, faults)
    await accepted.close()


def become_older(data: Path) -> None:
    """As a release before the chain left it: no link, no end, and a first anchor."""
    unmark(data)
    ((generation,),) = rows(data, "SELECT generation FROM vault_state")
    seal = seal_of(hasher_of(data), generation, None)
    gone = "audit_rows = NULL, audit_link = NULL, register = NULL"
    rows(data, f"UPDATE vault_state SET seal = ?, {gone}", seal)
    rows(data, "DELETE FROM register")
    rows(data, "UPDATE audit SET link = NULL")
    (data / "vault.anchor").write_text(f"keyrelay anchor 1 {generation:020} {seal.hex()}\n")


async def test_the_log_of_an_older_release_is_taken_in(vault: Vault, data: Path) -> None:
    """As it stands, without gaps in its numbers; a row says so, and `verify` does."""
    await issue(vault, 3)
    rows(data, "UPDATE audit SET id = id * 10 WHERE id > 3")
    become_older(data)
    anew = await open_vault(data, {}, FakeClock(), actor="cli ada")
    report = await anew.verify_audit()
    assert (report.rows, report.faults) == (7, ())
    [begun] = report.notable
    assert (begun.number, begun.actor, begun.action, begun.subject) == (
        6, "cli ada", "audit begin", "5 earlier rows",
    )  # fmt: skip
    assert (data / "vault.anchor").read_text().startswith("keyrelay anchor 2 ")
    await anew.close()


async def test_no_chain_begins_anew_where_the_anchor_knows_of_one(vault: Vault, data: Path) -> None:
    """Or whoever changed a row could have it taken in as it stands."""
    await issue(vault, 3)
    anchor = (data / "vault.anchor").read_bytes()
    become_older(data)
    (data / "vault.anchor").write_bytes(anchor)
    with pytest.raises(RolledBack, match=r"its audit log has 0 rows .* knows of 5 and"):
        await open_vault(data, {}, FakeClock())
    accepted = await open_vault(data, {}, FakeClock(), accept_rollback=True)
    report = await accepted.verify_audit()
    assert [entry.action for entry in report.notable] == ["audit begin", "rollback accept"]
    await accepted.close()


async def test_only_one_begins_the_chain(vault: Vault, data: Path) -> None:
    """Two processes open a new vault: the slower one finds it begun."""
    before = (await vault.verify_audit()).rows
    hasher = await vault._core.generation_hasher()
    state = await vault._core.begin(hasher)
    assert state == await vault._core.store.state()
    assert (await vault.verify_audit()).rows == before


async def test_entries_are_found_by_who_made_them(vault: Vault) -> None:
    """By exactly that name."""
    await vault.acting_as("token ann").put_key(new_key())
    await vault.acting_as("token anna").put_key(new_key(alias="b"))
    assert [one.subject for one in await vault.audit(actor="token ann")] == ["openai/default"]
    assert await vault.audit(actor="token") == []


async def test_entries_are_found_by_what_they_are(vault: Vault, clock: FakeClock) -> None:
    """By the first words of the act, exactly; by time; by tenant."""
    await vault.put_key(new_key())
    clock.advance(100)
    await vault.rotate_key(
        "default", "openai", "default", new_key(b"sk-other-0123456789").credential
    )
    await issue(vault, 1, "other")

    async def found(**wanted: object) -> list[str]:
        return [entry.action for entry in await vault.audit(**wanted)]  # type: ignore[arg-type]

    assert await found(action="key") == ["key rotate", "key add"]
    assert await found(action="key add") == ["key add"]
    assert await found(action="ke") == await found(action="%") == await found(action="key_") == []
    assert await found(since=clock.now()) == ["token issue", "key rotate"]
    assert await found(since=clock.now(), tenant="other") == ["token issue"]
