"""What the configuration file declares."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.clock import FakeClock
from tests.vault.conftest import Opener
from tests.vault.words import FIRST, SECOND, backend, named, new_key
from vault import (
    Backend,
    Changes,
    Declared,
    Invalid,
    KeyRecord,
    KeyRef,
    NewToken,
    NotThere,
    Secret,
    Vault,
)
from vault.audit import Change
from vault.core import Core


async def test_a_declared_key_works_like_a_stored_one(vault: Vault, clock: FakeClock) -> None:
    """Held, listed as the file's, opened and recognised; nothing of it is written."""
    before = vault.generation
    await vault.declare([new_key()], [backend()])
    ref = KeyRef("default", "openai", "default", 0, default=True, declared=True)
    held = await vault.holdings("default")
    assert held.keys == {"openai": (ref,)}
    assert held.backends == (Backend("default", "openai", backend().binding, declared=True),)
    assert await vault.list_keys() == [KeyRecord(ref, "…cdef", clock.now())]
    assert await vault.list_backends("default") == list(held.backends)
    assert await vault.open_key(ref) == {"key": Secret(FIRST)}
    assert [one.ref for one in await vault.recognise(FIRST)] == [ref]
    assert await vault.list_tenants() == ["default"]
    assert vault.generation == before


async def test_what_is_gone_from_the_file_is_gone(vault: Vault) -> None:
    """Each declaration replaces the one before, and what was looked up under it."""
    await vault.declare([new_key()], [backend()])
    (ref,) = (await vault.holdings("default")).keys["openai"]
    assert await vault.recognise(FIRST) != ()
    await vault.declare([], [])
    assert (await vault.holdings("default")).keys == {}
    assert await vault.recognise(FIRST) == ()
    with pytest.raises(NotThere, match="declares no key openai/default any more"):
        await vault.open_key(ref)


async def test_the_first_declared_key_is_the_default(vault: Vault) -> None:
    """Before any that is stored; the others follow."""
    await vault.put_key(new_key(alias="stored"))
    await vault.put_key(new_key(alias="stored", service="cohere"))
    await vault.declare([new_key(alias="b"), new_key(alias="a"), new_key(tenant="other")], [])
    keys = (await vault.holdings("default")).keys
    assert [(ref.alias, ref.default) for ref in keys["openai"]] == [
        ("b", True),
        ("a", False),
        ("stored", False),
    ]
    assert [(ref.alias, ref.default) for ref in keys["cohere"]] == [("stored", True)]
    assert [key.ref.default for key in await vault.list_keys("default")] == [
        True,
        False,
        True,
        False,
    ]
    with pytest.raises(Declared, match="the default key of openai"):
        await vault.make_default("default", "openai", "stored")


async def test_the_same_name_in_vault_and_file_is_refused(vault: Vault) -> None:
    """Keys and backends; and what was declared before stays."""
    await vault.declare([new_key(alias="fine")], [])
    await vault.put_key(new_key())
    await vault.add_backend(backend())
    with pytest.raises(Declared, match="key openai/default of tenant default is in the config"):
        await vault.declare([new_key(SECOND)], [])
    with pytest.raises(
        Declared, match=r"backend http://.* is in the configuration file and in the"
    ):
        await vault.declare([], [backend()])
    assert [key.ref.alias for key in await vault.list_keys()] == ["fine", "default"]


async def test_the_same_name_twice_in_the_file_is_refused(vault: Vault) -> None:
    """And what is no key or place."""
    with pytest.raises(Declared):
        await vault.declare([new_key(), new_key(SECOND)], [])
    with pytest.raises(Declared):
        await vault.declare([], [backend(), backend()])
    with pytest.raises(Invalid):
        await vault.declare([new_key(b"")], [])
    with pytest.raises(Invalid):
        await vault.declare([], [backend(service="A")])


async def test_declared_things_are_not_changed_here(vault: Vault) -> None:
    """Every verb that would is refused, an import too."""
    await vault.declare([new_key()], [backend()])
    acts = [
        vault.put_key(new_key(SECOND)),
        vault.rotate_key("default", "openai", "default", {"key": Secret(SECOND)}),
        vault.remove_key("default", "openai", "default"),
        vault.make_default("default", "openai", "default"),
        vault.add_backend(backend()),
        vault.remove_backend(backend()),
        vault.remove_tenant("default"),
        vault.apply(Changes((new_key(SECOND),))),
        vault.apply(Changes((), (backend(),)), replace=True),
    ]
    for act in acts:
        with pytest.raises(Declared, match="declare"):
            await act
    await vault.issue_token(NewToken("default", "ada"))


async def test_a_name_that_another_process_adds_shows_once(vault: Vault, opener: Opener) -> None:
    """The file's key goes on to be used until the next start refuses."""
    await vault.declare([new_key()], [])
    other = await opener()
    await other.put_key(new_key(SECOND))
    assert await vault.refresh()
    (ref,) = (await vault.holdings("default")).keys["openai"]
    assert await vault.open_key(ref) == {"key": Secret(FIRST)}
    assert [key.ref for key in await vault.list_keys()] == [ref]
    assert await other.open_key(named()) == {"key": Secret(SECOND)}


Said = list[tuple[str, str, str]]


async def noted(vault: Vault) -> Said:
    """What the log has of the file, oldest first; the marks of values left out."""
    found = [one for one in await vault.audit() if one.action.endswith("declare")]
    assert {one.actor for one in found} <= {"keys.yaml"}
    named = [(one.action, one.tenant, one.subject) for one in reversed(found)]
    return [
        (action, tenant, subject.split()[0] if action.startswith("key") else subject)
        for action, tenant, subject in named
    ]


async def test_what_is_new_in_the_file_stands_in_the_audit_log(vault: Vault) -> None:
    """Added, changed, taken out: a row each, chained like every other, and no change of the vault;
    of what is as it was no row."""
    before = vault.generation
    place = "openai http://127.0.0.1:9000/"
    steps: list[tuple[list[object], list[object], Said]] = [
        ([], [], []),
        (
            [new_key()],
            [backend()],
            [("key declare", "default", "openai/default"), ("backend declare", "default", place)],
        ),
        ([new_key()], [backend()], []),
        ([new_key(SECOND)], [backend()], [("key redeclare", "default", "openai/default")]),
        (
            [new_key(SECOND), new_key(tenant="other")],
            [],
            [
                ("backend undeclare", "default", place),
                ("key declare", "other", "openai/default"),
            ],
        ),
        (
            [],
            [],
            [
                ("key undeclare", "default", "openai/default"),
                ("key undeclare", "other", "openai/default"),
            ],
        ),
        ([new_key(SECOND)], [], [("key declare", "default", "openai/default")]),
    ]
    rows: Said = []
    for keys, backends, more in steps:
        await vault.declare(keys, backends)  # type: ignore[arg-type]
        await vault.note_declared()
        rows += more
        assert await noted(vault) == rows
    assert vault.generation == before
    assert (await vault.verify_audit()).faults == ()


async def test_the_next_start_notes_what_differs_alone(vault: Vault, opener: Opener) -> None:
    """What the log knows is not said again; what became of the file meanwhile is."""
    await vault.declare([new_key(), new_key(alias="b")], [backend()])
    await vault.note_declared()
    rows = await noted(vault)
    again = await opener()
    await again.declare([new_key(), new_key(alias="b")], [backend()])
    await again.note_declared()
    assert await noted(again) == rows
    await again.declare([new_key(), new_key(SECOND, alias="b")], [backend()])
    await again.note_declared()
    assert await noted(again) == [*rows, ("key redeclare", "default", "openai/b")]


async def test_a_row_holds_nothing_of_a_value(vault: Vault) -> None:
    """Eight digits under a data key, other ones for the same value under another name."""
    await vault.declare([new_key(), new_key(alias="b")], [])
    await vault.note_declared()
    subjects = [one.subject for one in await vault.audit() if one.action == "key declare"]
    marks = [subject.partition(" ")[2] for subject in subjects]
    assert len(set(marks)) == 2
    assert all(len(mark) == 8 and int(mark, 16) >= 0 for mark in marks)


async def test_of_several_processes_one_notes_it(
    vault: Vault, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the other one was faster by a moment."""
    other, real = await opener(), Core.noting
    for one in (vault, other):
        await one.declare([new_key()], [])

    @asynccontextmanager
    async def late(core: Core) -> AsyncIterator[Change]:
        monkeypatch.setattr(Core, "noting", real)
        await other.note_declared()
        async with real(core) as change:
            yield change

    monkeypatch.setattr(Core, "noting", late)
    await vault.note_declared()
    assert await noted(vault) == [("key declare", "default", "openai/default")]
    assert (await vault.verify_audit()).faults == ()
