"""Provider keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from tests.vault.conftest import Opener
from tests.vault.words import FIRST, SECOND, named, new_key, rows
from vault import AlreadyExists, Invalid, KeyRecord, KeyRef, NewKey, NotThere, Secret, Vault
from vault.keyrows import RETIRED_KEPT


async def rotate(vault: Vault, value: bytes = SECOND, alias: str = "default") -> KeyRecord:
    return await vault.rotate_key("default", "openai", alias, {"key": Secret(value)})


async def test_a_key_opens_as_it_was_put(vault: Vault, opener: Opener, clock: FakeClock) -> None:
    """In this process and in the next; shown only masked."""
    record = await vault.put_key(new_key())
    assert record == KeyRecord(
        KeyRef("default", "openai", "default", 1, default=True), "…cdef", clock.now()
    )
    for one in (vault, await opener()):
        assert await one.open_key(record.ref) == {"key": Secret(FIRST)}
        assert await one.list_keys() == [record]


async def test_a_key_may_have_parts_and_hosts(vault: Vault, opener: Opener) -> None:
    """All parts are sealed together; any octets are fine, an unrecognised part may be empty."""
    parts = {"username": Secret(b"\x00\xff"), "password": Secret(b"")}
    new = NewKey("t", "zendesk", "a", parts, "username", ("acme.zendesk.example",))
    ref = (await vault.put_key(new)).ref
    assert ref.hosts == ("acme.zendesk.example",)
    again = await opener()
    assert await again.open_key(ref) == parts
    assert (await again.holdings("t")).keys == {"zendesk": (ref,)}


async def test_an_opened_key_is_held_once(vault: Vault) -> None:
    """The same object until something changes."""
    ref = (await vault.put_key(new_key())).ref
    assert await vault.open_key(ref) is await vault.open_key(ref)


@pytest.mark.parametrize(
    "new",
    [
        new_key(b""),
        NewKey("default", "openai", "a", {"key": Secret(b"x")}, "token"),
        NewKey("default", "openai", "a", {}),
        new_key(alias="A"),
        new_key(tenant=""),
        new_key(service="open ai"),
    ],
)
async def test_what_is_no_key_is_refused(vault: Vault, new: NewKey) -> None:
    """Empty values and bad names."""
    with pytest.raises(Invalid):
        await vault.put_key(new)
    assert await vault.list_keys() == []


async def test_a_taken_name_says_how_to_rotate(vault: Vault) -> None:
    """Nothing is overwritten."""
    ref = (await vault.put_key(new_key())).ref
    with pytest.raises(AlreadyExists, match="keyrelay key rotate openai --alias default"):
        await vault.put_key(new_key(SECOND))
    assert await vault.open_key(ref) == {"key": Secret(FIRST)}


async def test_the_first_key_of_a_service_is_its_default(vault: Vault) -> None:
    """Until another is made it; per tenant and service."""
    for alias in ("b", "a"):
        await vault.put_key(new_key(alias=alias))
    await vault.put_key(new_key(alias="z", service="cohere"))
    await vault.put_key(new_key(alias="y", tenant="other"))
    assert [key.ref.alias for key in await vault.list_keys() if key.ref.default] == ["z", "b", "y"]
    await vault.make_default("default", "openai", "a")
    assert [ref.alias for ref in (await vault.holdings("default")).keys["openai"]] == ["a", "b"]
    assert [key.ref.alias for key in await vault.list_keys("default")] == ["z", "a", "b"]


async def test_a_rotated_key_is_a_new_version(vault: Vault, clock: FakeClock) -> None:
    """Default and hosts stay."""
    await vault.put_key(
        NewKey("default", "openai", "default", {"key": Secret(FIRST)}, "key", ("h",))
    )
    created = clock.now()
    clock.advance(60)
    record = await rotate(vault)
    assert record.ref == KeyRef("default", "openai", "default", 2, default=True, hosts=("h",))
    assert (record.created_at, record.rotated_at) == (created, clock.now())
    assert await vault.list_keys() == [record]


async def test_a_rotation_leaves_no_gap(vault: Vault, opener: Opener) -> None:
    """A call that chose the old version before it opened it gets the new one."""
    old = (await vault.put_key(new_key())).ref
    other = await opener()
    await rotate(vault)
    assert await other.open_key(old) == {"key": Secret(SECOND)}


async def test_a_retired_version_loses_its_value(vault: Vault, data: Path) -> None:
    """Only its fingerprint stays."""
    await vault.put_key(new_key())
    await rotate(vault)
    assert rows(data, "SELECT version, sealed IS NULL FROM key_versions") == [(1, 1), (2, 0)]


async def test_a_rotation_needs_the_part_that_is_recognised(vault: Vault) -> None:
    """It can't change the shape of a key."""
    await vault.put_key(new_key())
    with pytest.raises(Invalid, match="the key of key openai/default is empty"):
        await vault.rotate_key("default", "openai", "default", {"other": Secret(b"x")})


async def test_a_key_that_comes_back_is_recognised(vault: Vault) -> None:
    """By its exact octets, in every tenant that holds it, and by the part that is named."""
    await vault.put_key(new_key())
    await vault.put_key(new_key(tenant="other", alias="b"))
    parts = {"username": Secret(b"account"), "password": Secret(b"word")}
    await vault.put_key(NewKey("t", "twilio", "a", parts, "password"))
    found = await vault.recognise(FIRST)
    assert {(one.ref.tenant, one.ref.alias) for one in found} == {
        ("default", "default"),
        ("other", "b"),
    }
    assert await vault.recognise(FIRST) is found
    assert [one.ref.service for one in await vault.recognise(b"word")] == ["twilio"]
    assert await vault.recognise(b"account") == await vault.recognise(FIRST + b" ") == ()


async def test_a_rotated_key_is_recognised_for_a_while(vault: Vault, clock: FakeClock) -> None:
    """With the time of its retirement; whoever asks decides how long that counts."""
    old = (await vault.put_key(new_key())).ref
    clock.advance(5)
    await rotate(vault)
    (found,) = await vault.recognise(FIRST)
    assert (found.ref.version, found.retired_at) == (old.version, clock.now())
    (found,) = await vault.recognise(SECOND)
    assert (found.ref.version, found.retired_at) == (2, None)


async def test_a_retired_version_is_forgotten_after_a_day(
    vault: Vault, data: Path, clock: FakeClock
) -> None:
    """At once for recognition; its row goes with the next rotation."""
    await vault.put_key(new_key())
    await rotate(vault)
    clock.advance(RETIRED_KEPT)
    assert await vault.recognise(FIRST) == ()
    await rotate(vault, b"sk-third-0123456789abcdef")
    assert rows(data, "SELECT version FROM key_versions") == [(2,), (3,)]


async def test_a_key_that_is_rotated_back_is_current(vault: Vault) -> None:
    """One answer per key, the newest version of it."""
    await vault.put_key(new_key())
    await rotate(vault)
    await rotate(vault, FIRST)
    (found,) = await vault.recognise(FIRST)
    assert (found.ref.version, found.retired_at) == (3, None)


async def test_a_removed_key_ends_at_once(vault: Vault, data: Path) -> None:
    """All of its versions; its octets leave the file."""
    ref = (await vault.put_key(new_key())).ref
    await rotate(vault)
    await vault.remove_key("default", "openai", "default")
    assert await vault.recognise(FIRST) == await vault.recognise(SECOND) == ()
    assert await vault.list_keys() == []
    with pytest.raises(NotThere, match="tenant default has no key openai/default"):
        await vault.open_key(ref)
    assert rows(data, "SELECT * FROM key_versions") == []


async def test_a_version_number_is_never_given_twice(vault: Vault, clock: FakeClock) -> None:
    """A key that is added again goes on counting, and is no rotated one."""
    await vault.put_key(new_key())
    await rotate(vault)
    await vault.remove_key("default", "openai", "default")
    clock.advance(1)
    record = await vault.put_key(new_key())
    assert (record.ref.version, record.ref.default, record.rotated_at) == (3, True, None)
    assert record.created_at == clock.now()


async def test_the_oldest_other_key_becomes_the_default(vault: Vault) -> None:
    """When the default is removed; else the default stays."""
    for alias in ("c", "b", "a"):
        await vault.put_key(new_key(alias=alias))
    await vault.remove_key("default", "openai", "c")
    assert [(key.ref.alias, key.ref.default) for key in await vault.list_keys()] == [
        ("b", True),
        ("a", False),
    ]
    await vault.remove_key("default", "openai", "a")
    assert [key.ref.default for key in await vault.list_keys()] == [True]


async def test_an_unknown_key_is_named(vault: Vault) -> None:
    """With the command that lists what there is."""
    acts = [
        vault.remove_key("default", "openai", "nope"),
        vault.make_default("default", "openai", "nope"),
        vault.rotate_key("default", "openai", "nope", {"key": Secret(FIRST)}),
        vault.open_key(named("nope")),
    ]
    for act in acts:
        with pytest.raises(
            NotThere, match=re.escape("openai/nope; see what there is with: keyrelay key list")
        ):
            await act


async def test_nothing_crosses_tenants(vault: Vault) -> None:
    """A tenant's list and holdings are its own."""
    await vault.put_key(new_key())
    assert await vault.list_keys("other") == []
    assert (await vault.holdings("other")).keys == {}
    with pytest.raises(NotThere):
        await vault.open_key(named(tenant="other"))
