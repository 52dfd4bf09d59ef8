"""Issued tokens."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from tests.vault.conftest import Opener
from tests.vault.words import rows, touch_generation
from vault import (
    AlreadyExists,
    Invalid,
    Narrowing,
    NewShortLived,
    NewToken,
    NotThere,
    Token,
    TokenChange,
    Unopenable,
    Vault,
)
from vault.issued import _digest_of
from vault.tokens import _checksum, checked, mint

SCOPED = NewToken(
    "default",
    "ada",
    "read",
    frozenset({"openai", "cohere"}),
    {"openai": "team-b"},
    1_900_000_000.0,
    ("60/minute", "openai=1000/day"),
    ("10/minute",),
    2**31 - 1,
    Narrowing(("a.example",), ("/v1", "/v2"), ("GET",), ("https://b.example",)),
    10**15,
)


async def test_a_token_verifies_as_it_was_issued(
    vault: Vault, opener: Opener, clock: FakeClock
) -> None:
    """With its scope, in this process and in the next."""
    token, text = await vault.issue_token(SCOPED)
    assert token == Token(
        token.id,
        "ada",
        "default",
        "read",
        clock.now(),
        SCOPED.services,
        SCOPED.key_aliases,
        SCOPED.expires_at,
        None,
        SCOPED.limits,
        SCOPED.upstream_limits,
        SCOPED.budget,
        SCOPED.narrowing,
        calls=SCOPED.calls,
    )
    for one in (vault, await opener()):
        assert await one.verify_token(text.encode()) == token
        assert await one.list_tokens("default") == await one.list_tokens() == [token]
        assert await one.list_tokens("other") == []


@pytest.mark.on_file
async def test_only_the_hash_of_a_token_is_stored(vault: Vault, data: Path) -> None:
    """The text is shown once."""
    _, text = await vault.issue_token(NewToken("default", "ada"))
    assert text[16:48].encode() not in (data / "vault.db").read_bytes()


async def test_every_bad_token_is_none(vault: Vault, clock: FakeClock) -> None:
    """Malformed, a typo, unknown, forged, expired, revoked: no difference to be seen."""
    token, text = await vault.issue_token(SCOPED)
    forged = mint().text
    forged_id = forged.replace(forged[3:15], token.id)
    wrong = [
        b"",
        b"sk-no-token",
        b"\xff\x00",
        text[:-1].encode(),
        forged.encode(),
        forged_id.encode(),
    ]
    for one in wrong:
        assert await vault.verify_token(one) is None
        assert await vault.verify_token(one) is None
    assert await vault.verify_token(text.encode()) == token
    clock.advance(token.expires_at - clock.now())
    assert await vault.verify_token(text.encode()) is None


async def test_a_forged_secret_with_a_good_checksum_is_refused(vault: Vault) -> None:
    """The checksum protects nothing; the digest does."""
    _, text = await vault.issue_token(NewToken("default", "ada"))
    body = text[:47] + ("a" if text[47] != "a" else "b")
    assert await vault.verify_token((body + _checksum(body.encode())).encode()) is None


async def test_an_unknown_id_is_looked_up_once(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known or not, a second try does the same work: none in the database."""
    token, text = await vault.issue_token(NewToken("default", "ada"))
    unknown = mint().text.encode()
    assert await vault.verify_token(unknown) is None
    assert await vault.verify_token(text.encode()) == token

    def no_reading() -> None:
        raise AssertionError("the database was asked again")

    monkeypatch.setattr(vault._core.store, "reading", no_reading)
    assert await vault.verify_token(unknown) is None
    assert await vault.verify_token(text.encode()) == token


async def test_a_secret_is_good_with_its_own_id_alone(vault: Vault) -> None:
    """Of an id that nobody has a neighbour's row is read: below the first, between, above all."""
    texts = [(await vault.issue_token(NewToken("default", name)))[1] for name in ("ada", "bob")]
    for text in texts:
        ids = ["0" * 12, text[3:14] + ("1" if text[14] == "0" else "0"), "z" * 12]
        for other in ids:
            body = f"kr_{other}{text[15:48]}".encode()
            assert await vault.verify_token(checked(body)) is None
    for text in texts:
        found = await vault.verify_token(text.encode())
        assert found is not None
        assert found.id == text[3:15]


async def test_a_row_is_read_for_an_id_that_nobody_has(vault: Vault) -> None:
    """A neighbour's, wherever the id would stand: else it would be told by the time."""
    token, text = await vault.issue_token(NewToken("default", "ada"))
    async with vault._core.reading() as connection:
        for other in ("0" * 12, token.id, "z" * 12):
            read = await connection.scalar(_digest_of(other))
            assert read == sha256(text.encode()).digest()


async def test_a_revoked_token_is_refused_at_once(vault: Vault, clock: FakeClock) -> None:
    """Here at once; the list shows when it ended."""
    token, text = await vault.issue_token(NewToken("default", "ada"))
    assert await vault.verify_token(text.encode()) == token
    clock.advance(7)
    revoked = await vault.revoke_token("default", "ada")
    assert revoked.revoked_at == clock.now()
    assert await vault.verify_token(text.encode()) is None
    assert await vault.list_tokens() == [revoked]


async def test_a_revocation_reaches_other_processes(vault: Vault, opener: Opener) -> None:
    """With their next refresh."""
    token, text = await vault.issue_token(NewToken("default", "ada"))
    other = await opener()
    assert await other.verify_token(text.encode()) == token
    assert not await other.refresh()
    await vault.revoke_token("default", token.id)
    assert await other.refresh()
    assert await other.verify_token(text.encode()) is None


async def test_a_token_is_revoked_by_id_before_name(vault: Vault) -> None:
    """A name that looks like another's id ends its own token only when no id fits."""
    first, _ = await vault.issue_token(NewToken("default", "ada"))
    second, _ = await vault.issue_token(NewToken("default", first.id))
    assert (await vault.revoke_token("default", first.id)).id == first.id
    assert (await vault.revoke_token("default", first.id)).id == second.id


async def test_only_a_live_token_of_the_tenant_can_be_revoked(vault: Vault) -> None:
    """Twice is an error, and so is another tenant's."""
    token, _ = await vault.issue_token(NewToken("default", "ada"))
    with pytest.raises(NotThere, match=r"no token 'ada' .* keyrelay token list --tenant other$"):
        await vault.revoke_token("other", "ada")
    await vault.revoke_token("default", "ada")
    for name in ("ada", token.id):
        with pytest.raises(NotThere, match="keyrelay token list"):
            await vault.revoke_token("default", name)


async def test_names_are_taken_until_they_are_revoked(vault: Vault) -> None:
    """Per tenant."""
    await vault.issue_token(NewToken("default", "ada"))
    await vault.issue_token(NewToken("other", "ada"))
    with pytest.raises(AlreadyExists, match="keyrelay token revoke ada"):
        await vault.issue_token(NewToken("default", "ada"))
    await vault.revoke_token("default", "ada")
    await vault.issue_token(NewToken("default", "ada"))
    assert len(await vault.list_tokens("default")) == 2


@pytest.mark.parametrize(
    "new",
    [
        NewToken("Default", "ada"),
        NewToken("default", "ada l"),
        NewToken("default", "ada", "root"),
        NewToken("default", "ada", services=frozenset()),
        NewToken("default", "ada", services=frozenset({"Open AI"})),
        NewToken("default", "ada", key_aliases={"Open AI": "a"}),
        NewToken("default", "ada", key_aliases={"openai": "A"}),
        NewToken("default", "ada", expires_at=1_800_000_000.0),
        NewToken("default", "ada", limits=("60 per minute",)),
        NewToken("default", "ada", upstream_limits=("",)),
        NewToken("default", "ada", limits=("1/day",) * 65),
        NewToken("default", "ada", budget=-1),
        NewToken("default", "ada", budget=2**31),
        NewToken("default", "ada", calls=0),
        NewToken("default", "ada", calls=-1),
        NewToken("default", "ada", calls=10**15 + 1),
    ],
)
async def test_what_makes_no_sense_is_refused(vault: Vault, new: NewToken) -> None:
    """Names, roles, an empty scope, a time that is over."""
    with pytest.raises(Invalid):
        await vault.issue_token(new)


async def test_a_token_gets_other_limits(vault: Vault, clock: FakeClock) -> None:
    """At once; what is not named stays, and all of it can be taken away again."""
    token, text = await vault.issue_token(SCOPED)
    assert await vault.verify_token(text.encode()) == token
    generation = vault.generation
    changed = await vault.change_token("default", "ada", {"limits": ("5/second",)})
    assert changed == replace(token, limits=("5/second",))
    assert vault.generation > generation
    assert await vault.verify_token(text.encode()) == changed
    again = await vault.change_token(
        "default", token.id, {"limits": (), "upstream_limits": (), "budget": None, "calls": 7}
    )
    assert again == replace(token, limits=(), upstream_limits=(), budget=None, calls=7)
    assert await vault.list_tokens() == [again]
    assert [entry.action for entry in await vault.audit(2)] == ["token set", "token set"]
    assert (await vault.audit(1))[0].subject == f"ada ({token.id})"


async def test_a_number_of_calls_is_taken_away_again(vault: Vault) -> None:
    """And given once more; what is made for a page has its parent's."""
    token, text = await vault.issue_token(NewToken("default", "ada", calls=1))
    until = NewShortLived(token.created_at + 60.0, calls=5)
    short, _ = await vault.issue_short_lived(token, until)
    assert (token.calls, short.calls, short.short and short.short.calls) == (1, 1, 5)
    for calls in (None, 3):
        changed = await vault.change_token("default", "ada", {"calls": calls})
        assert changed.calls == calls
        assert await vault.verify_token(text.encode()) == changed


async def test_only_a_live_token_can_be_changed(vault: Vault) -> None:
    """And only to what makes sense; a refusal changes nothing."""
    token, _ = await vault.issue_token(SCOPED)
    with pytest.raises(NotThere, match=r"no token 'ada' that could be changed; .* --tenant other$"):
        await vault.change_token("other", "ada", {"budget": 1})
    nonsense: list[TokenChange] = [{}, {"limits": ("a b",)}, {"budget": -1}, {"calls": 0}]
    for change in nonsense:
        with pytest.raises(Invalid):
            await vault.change_token("default", "ada", change)
    assert await vault.list_tokens() == [token]
    await vault.revoke_token("default", "ada")
    with pytest.raises(NotThere):
        await vault.change_token("default", "ada", {"budget": 1})


async def test_another_process_changes_limits(vault: Vault, opener: Opener) -> None:
    """Known with the next refresh."""
    _, text = await vault.issue_token(SCOPED)
    other = await opener()
    assert await other.verify_token(text.encode()) is not None
    changed = await vault.change_token("default", "ada", {"budget": 7})
    assert await other.refresh()
    assert await other.verify_token(text.encode()) == changed


@pytest.mark.parametrize("column", ["services", "key_aliases", "limits", "upstream_limits"])
async def test_a_damaged_token_fails_closed(vault: Vault, data: Path, column: str) -> None:
    """Naming the row."""
    token, text = await vault.issue_token(SCOPED)
    rows(data, f"UPDATE tokens SET {column} = '[1'")
    touch_generation(data)
    await vault.refresh()
    with pytest.raises(Unopenable, match=f"token {token.id} of tenant default was changed"):
        await vault.verify_token(text.encode())


async def test_a_known_token_is_looked_up_by_its_id(
    vault: Vault, opener: Opener, clock: FakeClock
) -> None:
    """As it is now: not once it has expired, was revoked elsewhere, or was never there."""
    other = await opener()
    token, _ = await vault.issue_token(NewToken("default", "ada", expires_at=clock.now() + 60))
    lasting, _ = await vault.issue_token(NewToken("default", "eve"))
    assert await vault.good_token(token.id) == token
    assert await vault.good_token(lasting.id) == lasting
    assert await vault.good_token("0" * 12) is None
    clock.advance(60)
    assert await vault.good_token(token.id) is None
    await other.revoke_token("default", "eve")
    assert await vault.refresh()
    assert await vault.good_token(lasting.id) is None


async def test_a_token_is_narrowed_later_and_opened_again(vault: Vault) -> None:
    """What is not named stays; an empty member narrows nothing."""
    token, text = await vault.issue_token(NewToken("default", "ada"))
    changed = await vault.change_token("default", "ada", {"hosts": ("a.example",)})
    assert changed.narrowing == Narrowing(hosts=("a.example",))
    changed = await vault.change_token("default", "ada", {"methods": ("GET",), "hosts": ()})
    assert changed.narrowing == Narrowing(methods=("GET",))
    assert await vault.verify_token(text.encode()) == changed
    for bad in (("a b",), ("",), ("a",) * 65):
        with pytest.raises(Invalid, match="narrowed to at most 64 hosts"):
            await vault.change_token("default", token.id, {"hosts": bad})
