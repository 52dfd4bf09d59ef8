"""`keyrelay audit`: one clear sentence of whether it is intact, and who did what."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tests.proxy.cli.conftest import CANARY, Terminal
from tests.support.clock import FakeClock
from vault import passphrase


def change(shell: Terminal, statement: str) -> None:
    """Behind the vault's back."""
    with closing(sqlite3.connect(shell.data / "vault.db")) as database, database:
        database.execute(statement)


@pytest.fixture
def busy(relay: Terminal) -> Terminal:
    """A vault with seven rows; the last ones a day later."""
    relay.clock = FakeClock(1_900_000_000.0)
    relay.run("key", "add", "openai", stdin=CANARY)
    relay.run("token", "issue", "ann")
    relay.clock = FakeClock(1_900_086_400.0)
    relay.run("token", "issue", "bob", "--tenant", "research")
    relay.run("token", "revoke", "ann")
    relay.run("cache", "purge")
    return relay


def test_an_intact_log_says_so(busy: Terminal) -> None:
    """How many rows, since when; and the same for scripts."""
    said = busy.run("audit", "verify").out
    assert said.startswith("the audit log is intact: 7 rows since 20")
    facts = busy.run("audit", "verify", "--json").json
    assert (facts["intact"], facts["rows"], facts["faults"], facts["notable"]) == (True, 7, [], [])


@pytest.mark.parametrize(
    ("act", "said"),
    [
        ("UPDATE audit SET actor = 'x' WHERE id = 4", "row 4 was changed"),
        ("DELETE FROM audit WHERE id = 4", "row 4 is missing"),
        ("DELETE FROM audit WHERE id > 5", "row 6 to row 7 are missing: the end was cut off"),
        ("UPDATE audit SET id = 99 WHERE id = 4", "row 4 is missing; and row 99 was put there by"),
        ("INSERT INTO audit SELECT 8, at, '', '', '', '', '' FROM audit WHERE id = 1", "row 8 was"),
    ],
)
def test_a_log_that_was_changed_fails_by_the_first_wrong_row(
    busy: Terminal, act: str, said: str
) -> None:
    """One sentence, exit 1; as JSON too."""
    change(busy, act)
    told = busy.run("audit", "verify", code=1)
    assert told.err.startswith(f"keyrelay: the audit log is not as keyrelay wrote it: {said}")
    assert busy.run("audit", "verify", "--json", code=1).json["intact"] is False


def test_rows_in_each_others_place_are_told(busy: Terminal) -> None:
    """With where each belongs."""
    for row, place in ((3, -1), (6, 3), (-1, 6)):
        change(busy, f"UPDATE audit SET id = {place} WHERE id = {row}")
    told = busy.run("audit", "verify", code=1).err
    assert "row 3 is out of order: what belongs there stands in row 6; and " in told


def test_an_end_that_was_changed_opens_nothing(busy: Terminal) -> None:
    """Like every change of the row that says how far the vault has come."""
    change(busy, "UPDATE vault_state SET audit_rows = 3")
    assert "the row vault_state" in busy.run("audit", "verify", code=1).err


@pytest.mark.parametrize(
    ("words", "acts"),
    [
        (("--limit", "2"), ["cache purge", "token revoke"]),
        (("--act", "token"), ["token revoke", "token issue", "token issue"]),
        (("--act", "token issue", "--tenant", "research"), ["token issue"]),
        (("--since", "2030-03-18T12:00"), ["cache purge", "token revoke", "token issue"]),
        (("--since", "1h", "--act", "token issue"), ["token issue"]),
        (("--tenant", "nobody"), []),
    ],
)
def test_entries_are_chosen_as_people_expect(
    busy: Terminal, words: tuple[str, ...], acts: list[str]
) -> None:
    """The newest first."""
    assert [row["act"] for row in busy.run("audit", "show", *words).rows] == acts


def test_an_entry_says_who_did_what_to_which_thing(busy: Terminal) -> None:
    """In columns, and in JSON."""
    [row] = busy.run("audit", "show", "--act", "key").rows
    assert (row["row"], row["at"], row["act"]) == ("3", "2030-03-17T17:46:40Z", "key add")
    assert (row["tenant"], row["subject"]) == ("default", "openai/default")
    assert row["by"].startswith("cli ")
    [same] = busy.run("audit", "show", "--act", "key", "--json").json
    assert {name: str(value) for name, value in same.items()} == row


def test_a_row_of_somebody_else_does_not_steer_the_terminal(busy: Terminal) -> None:
    """Nor does it end the list."""
    change(busy, "UPDATE audit SET subject = char(27) || '[2J' || char(10), at = 'x' WHERE id = 7")
    row = busy.run("audit", "show", "--limit", "1").rows[0]
    assert (row["subject"], row["at"]) == ("?[2J?", "?")


def test_a_restored_vault_says_so(busy: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the row after that in which the older one was accepted."""
    monkeypatch.setattr(passphrase, "_COST", 10)
    busy.run("backup", "one.backup", stdin="correct horse battery")
    busy.run("token", "issue", "eve")
    words = ("restore", "one.backup", "--replace", "--accept-rollback")
    busy.run(*words, stdin="correct horse battery")
    rows = busy.run("audit", "show", "--limit", "2").rows
    assert [row["act"] for row in rows] == ["vault restore", "rollback accept"]
    assert rows[0]["subject"] == "as it was at 2030-03-18T17:46:40Z"
    said = busy.run("audit", "verify").out
    assert "; row 8: an older database was accepted there" in said
    assert busy.run("audit", "verify", "--json").json["notable"] == [
        {"row": 8, "act": "rollback accept"}
    ]


def test_rows_that_somebody_put_back_are_named(busy: Terminal) -> None:
    """All of the vault's, not only the log's: one sentence, exit 1; as JSON too."""
    assert busy.run("audit", "rows").out == "every row of the vault is as keyrelay wrote it\n"
    change(busy, "UPDATE tokens SET revoked_at = NULL")
    told = busy.run("audit", "rows", code=1)
    assert told.err.startswith("keyrelay: the vault's rows are not as keyrelay wrote them: token ")
    assert "of tenant default is not as it was written last" in told.err
    assert busy.run("audit", "rows", "--json", code=1).json["intact"] is False
