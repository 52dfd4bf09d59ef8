"""The attacks of `make attack` on the vault, in short: each change is refused by its row's name."""

from __future__ import annotations

import pytest

from tests.attack import replays, rotation, rows, tables
from tests.attack.rows import Siege
from tests.attack.vault import ACTS, besiege, besiege_tables
from tests.vault.words import named

SHORT = {
    **ACTS,
    "each bit of each octet of each sealed row": lambda siege: rows.flip_rows(siege, [0], 9, 3),
    "each bit of each octet of each data key": lambda siege: rows.flip_data_keys(siege, [5], 5),
    "all pairs of columns of a row": lambda siege: rows.swap_columns(siege, every=9),
    "values of any type in every column": lambda siege: rows.put_odd_values(siege, [b"", 1.5]),
    "undecodable octets": lambda siege: rows.flip_rows(siege, [7], 9, 9),
}


@pytest.mark.parametrize("act", SHORT.values(), ids=SHORT)
async def test_nothing_that_was_changed_is_served(act) -> None:
    """Detected, named, and never another error or another key."""
    verdict = await besiege(act)
    assert verdict.faults == []
    assert verdict.refused


@pytest.mark.parametrize(
    ("changes", "every"),
    list(zip(tables.KINDS.values(), (397, 41, 53), strict=True)),
    ids=list(tables.KINDS),
)
async def test_nothing_that_was_changed_in_any_table_goes_unnamed(changes, every) -> None:
    """Tokens, keys, backends, purges, data keys, and the register itself."""
    verdict = await besiege_tables(changes, every)
    assert verdict.faults == []
    assert verdict.refused


async def test_no_old_row_that_is_put_back_is_served(data) -> None:
    """Alone, with all of its key, with the page of the register that fitted it; nor is one missed
    that was taken out: it is named."""
    verdict = await replays.replay(data, every=9)
    assert verdict.faults == []
    assert verdict.refused


async def test_the_siege_itself_would_notice(data) -> None:
    """A change that nobody refuses, and a key that is another one, are faults."""
    siege = await Siege.begin(data)
    await siege.judge("nothing at all")
    siege.known[named()] = {}
    await siege.judge("another key", harmless=True)
    verdict = await siege.end()
    assert verdict.faults == ["nothing at all: nobody noticed", "another key: WRONG KEY SERVED"]


async def test_a_list_shows_a_row_with_odd_values(data) -> None:
    """So that whoever looks finds what is to be removed."""
    siege = await Siege.begin(data)
    before = {key.ref for key in await siege.vault.list_keys()}
    for column in ("sealed", "created_at"):
        siege.intruder.put("key_versions", 1, column, 2**62)
    assert {key.ref for key in await siege.vault.list_keys()} == before == set(siege.known)
    await siege.end()


async def test_a_rotation_that_is_killed_loses_no_key() -> None:
    """At a few random moments, over enough keys for several batches; then it resumes."""
    figures = await rotation.run(kills=5, keys=450, longest=0.4)
    assert (figures.kills, figures.unread, figures.left) == (5, 0, 0)
    assert figures.asked == 5 * 50 + 450
