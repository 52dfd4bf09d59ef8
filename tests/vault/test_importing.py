"""Many keys and backends in one transaction."""

from __future__ import annotations

import pytest
from sqlalchemy import Table, select

from tests.vault.conftest import Opener
from tests.vault.words import FIRST, SECOND, backend, named, new_key, rows
from vault import Changes, Invalid, NewKey, Secret, Unopenable, Vault, keyrows, places
from vault.secret import octets_of
from vault.tables import KEY_VERSIONS, KEYS

CHANGES = Changes((new_key(), new_key(alias="b"), new_key(tenant="t")), (backend(),))


async def test_an_import_adds_everything_at_once(vault: Vault, opener: Opener) -> None:
    """One change, with an outcome for each thing in its order."""
    before = vault.generation
    applied = await vault.apply(CHANGES)
    assert applied.written
    assert [
        (one.done, one.kind, one.tenant, one.service, one.name) for one in applied.outcomes
    ] == [
        ("added", "key", "default", "openai", "default"),
        ("added", "key", "default", "openai", "b"),
        ("added", "key", "t", "openai", "default"),
        ("added", "backend", "default", "openai", "http://127.0.0.1:9000/"),
    ]
    assert vault.generation == before + 1
    again = await opener()
    assert [key.ref.default for key in await again.list_keys()] == [True, False, True]


async def test_the_same_import_again_changes_nothing(vault: Vault) -> None:
    """Not even the count of changes or the audit log."""
    await vault.apply(CHANGES)
    before = (vault.generation, await vault.audit())
    applied = await vault.apply(CHANGES)
    assert not applied.written
    assert {one.done for one in applied.outcomes} == {"unchanged"}
    assert (vault.generation, await vault.audit()) == before
    assert not await vault.refresh()


@pytest.mark.parametrize(
    "other",
    [
        new_key(SECOND),
        NewKey("default", "openai", "default", {"key": Secret(FIRST)}, "key", ("h",)),
        NewKey("default", "openai", "default", {"key": Secret(FIRST), "b": Secret(b"")}),
        NewKey("default", "openai", "default", {"key": Secret(FIRST), "b": Secret(b"x")}, "b"),
    ],
)
async def test_what_differs_is_a_conflict(vault: Vault, other: NewKey) -> None:
    """In a value, a part, its hosts or what it is recognised by: then nothing at all is written."""
    await vault.put_key(new_key())
    before = await vault.audit()
    applied = await vault.apply(Changes((new_key(alias="b"), other), (backend(),)))
    assert not applied.written
    assert [one.done for one in applied.outcomes] == ["added", "conflict", "added"]
    assert [one.name for one in applied.conflicts] == ["default"]
    assert await vault.audit() == before
    assert [key.ref.alias for key in await vault.list_keys()] == ["default"]
    assert await vault.list_backends() == []
    assert await vault.open_key(named()) == {"key": Secret(FIRST)}


async def test_replace_rotates_what_differs(vault: Vault) -> None:
    """The old value is recognised for a while; new hosts are taken over."""
    await vault.put_key(new_key())
    other = NewKey("default", "openai", "default", {"key": Secret(SECOND)}, "key", ("h",))
    applied = await vault.apply(Changes((other, new_key(alias="b"))), replace=True)
    assert applied.written
    assert [one.done for one in applied.outcomes] == ["replaced", "added"]
    (record, _) = await vault.list_keys()
    assert (record.ref.version, record.ref.hosts) == (2, ("h",))
    assert await vault.open_key(record.ref) == {"key": Secret(SECOND)}
    assert {one.retired_at is None for one in await vault.recognise(FIRST)} == {True, False}


async def test_nothing_is_half_done_when_the_import_fails(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the middle leaves the vault as it was."""

    async def failing(*_: object) -> None:
        raise RuntimeError("now")

    monkeypatch.setattr(places, "insert_backend", failing)
    with pytest.raises(RuntimeError):
        await vault.apply(CHANGES)
    assert await vault.list_keys() == await vault.list_backends() == []


async def test_a_name_twice_in_one_import_is_refused(vault: Vault) -> None:
    """And what is no key or no place."""
    with pytest.raises(Invalid, match="more than once: key openai/default of default"):
        await vault.apply(Changes((new_key(), new_key(SECOND))))
    for wrong in (Changes((new_key(b""),)), Changes((), (backend(service="A"),))):
        with pytest.raises(Invalid):
            await vault.apply(wrong)


async def test_a_backend_twice_in_one_import_is_there_once(vault: Vault) -> None:
    """The second is unchanged."""
    applied = await vault.apply(Changes((), (backend(), backend())))
    assert [one.done for one in applied.outcomes] == ["added", "unchanged"]


async def test_a_key_that_was_taken_out_is_not_the_same(vault: Vault, data) -> None:
    """A row without a version differs from everything; replacing makes it good again."""
    await vault.put_key(new_key())
    rows(data, "DELETE FROM key_versions")
    await vault.refresh()
    with pytest.raises(Unopenable):
        await vault.open_key(named())
    assert (await vault.apply(Changes((new_key(),)))).conflicts
    assert (await vault.apply(Changes((new_key(),)), replace=True)).written
    assert await vault.open_key(named()) == {"key": Secret(FIRST)}


async def test_a_large_import_is_as_many_single_ones(vault: Vault) -> None:
    """Sound rows, the first of each service as its default, an entry for each in its order."""
    await vault.put_key(new_key(alias="first"))
    await vault.put_key(new_key(alias="k3", tenant="t1"))
    await vault.remove_key("t1", "openai", "k3")
    keys = tuple(
        new_key(f"sk-number-{tenant}-{number}".encode(), f"k{number}", tenant=tenant)
        for tenant in ("default", "t1")
        for number in range(5, -1, -1)
    )
    before = len(await vault.audit())
    with pytest.MonkeyPatch.context() as few:
        few.setattr("vault.keyrows._PART", 3)
        assert {one.done for one in (await vault.apply(Changes(keys))).outcomes} == {"added"}
        again = await vault.apply(Changes((*keys, new_key(SECOND, alias="first"))))
    assert not again.written
    assert [one.done for one in again.outcomes] == ["unchanged"] * 12 + ["conflict"]
    assert await vault.examine() == []
    records = await vault.list_keys()
    assert [one.ref.alias for one in records if one.ref.default] == ["first", "k5"]
    assert [(one.ref.tenant, one.ref.alias) for one in records] == [
        *(("default", alias) for alias in ("first", "k5", "k4", "k3", "k2", "k1", "k0")),
        *(("t1", alias) for alias in ("k5", "k4", "k3", "k2", "k1", "k0")),
    ]
    assert [one.ref.version for one in records if one.ref.alias == "k3"] == [1, 2]
    for key in keys:
        [found] = await vault.recognise(octets_of(key.credential["key"]))
        assert await vault.open_key(found.ref) == key.credential
    entries = list(await vault.audit())[: len(keys)]
    assert [one.subject for one in reversed(entries)] == [f"openai/{key.alias}" for key in keys]
    assert len(await vault.audit()) == before + len(keys)
    assert (await vault.verify_audit()).faults == ()


async def test_versions_without_a_name_are_not_taken_for_a_new_key(vault: Vault, data) -> None:
    """Whoever took the name's row out has left them: they go, and the key is made anew."""
    await vault.put_key(new_key())
    rows(data, "DELETE FROM keys")
    await vault.refresh()
    assert (await vault.apply(Changes((new_key(SECOND), new_key(alias="b"))))).written
    assert await vault.examine() == []
    assert await vault.open_key(named()) == {"key": Secret(SECOND)}


@pytest.mark.parametrize("engine", ["sqlite"])
@pytest.mark.parametrize("table", [KEYS, KEY_VERSIONS])
async def test_many_names_are_found_by_the_index(vault: Vault, table: Table) -> None:
    """An import into a full vault reads no more than one into an empty one."""
    asked = keyrows.among([("default", "openai", alias) for alias in "abc"], table)
    async with vault._core.reading() as connection:
        literal = {"literal_binds": True}
        query = (
            select(table).where(asked).compile(dialect=connection.dialect, compile_kwargs=literal)
        )
        plan = list(await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}"))
    steps = [row.detail for row in plan if table.name in row.detail]
    assert [step.partition(" USING ")[0] for step in steps] == [f"SEARCH {table.name}"]
