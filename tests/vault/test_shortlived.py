"""Short-lived tokens: what they may, how long, and that nobody makes more of one."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from proxy.leaks import holds_token
from tests.support.clock import FakeClock
from tests.vault.conftest import Opener
from tests.vault.words import rows
from vault import (
    Invalid,
    Narrowing,
    NewShortLived,
    NewToken,
    ShortLived,
    Token,
    TokenChange,
    Vault,
    describe_token,
)
from vault.tokens import checked

ONLY = Narrowing(("a.example",), ("/v1",), ("GET",), ("https://b.example",))


async def made(vault: Vault, clock: FakeClock, **more: object) -> tuple[Token, Token, str]:
    """The parent, a token of it that is good for a minute, and its text."""
    parent, _ = await vault.issue_token(NewToken("default", "ada", "admin"))
    new = NewShortLived(clock.now() + 60, frozenset({"openai"}), ONLY, **more)  # type: ignore[arg-type]
    return parent, *(await vault.issue_short_lived(parent, new))


async def test_it_verifies_as_it_was_made(vault: Vault, clock: FakeClock, opener: Opener) -> None:
    """Under its parent's name and id, to call and nothing else; in the next process too."""
    parent, token, text = await made(vault, clock)
    assert (token.id, token.name, token.role) == (parent.id, "ada", "call")
    assert (token.services, token.expires_at) == (frozenset({"openai"}), clock.now() + 60)
    assert token.short == ShortLived(token.short.serial, ONLY) if token.short else False
    for one in (vault, await opener()):
        assert await one.verify_token(text.encode()) == token


async def test_one_that_another_process_makes_is_good_here_too(
    vault: Vault, clock: FakeClock, opener: Opener
) -> None:
    """The first of all as well, whose data key is younger than this process. One with a number of
    calls, where both are one run; what is no token of anybody looks for no key again and again."""
    other, forged = await opener(), checked(b"kr_" + b"A" * 12 + b"_" + b"A" * 68)
    assert [await other.verify_token(forged) for _ in range(2)] == [None, None]
    parent, token, text = await made(vault, clock)
    assert await other.verify_token(text.encode()) is None
    await other.refresh()
    assert await other.verify_token(text.encode()) == token
    three = NewShortLived(clock.now() + 9, calls=3)
    _, text = await vault.issue_short_lived(parent, three)
    assert await other.verify_token(text.encode()) is None
    for one in (vault, other):
        one.run_as("together")
    counted, text = await vault.issue_short_lived(parent, three)
    assert await other.verify_token(text.encode()) == counted


async def test_to_reseal_ends_those_of_before(
    vault: Vault, clock: FakeClock, opener: Opener, data: Path
) -> None:
    """Who stole the vault with its master key can make more of them, but only with the data key of
    before: refused here, and in each process that was open; their parent makes others."""
    parent, _, stolen = await made(vault, clock)
    server = await opener()
    assert await server.verify_token(stolen.encode()) is not None
    await vault.rotate_master()
    await server.refresh()
    assert await server.verify_token(stolen.encode()) is not None
    await vault.rotate_master(reseal=True)
    await server.refresh()
    for one in (vault, server, await opener()):
        assert await one.verify_token(stolen.encode()) is None
        token, text = await one.issue_short_lived(parent, NewShortLived(clock.now() + 60))
        assert await vault.verify_token(text.encode()) == token
    [[left]] = rows(data, "SELECT count(*) FROM data_keys WHERE purpose = 'short-lived-tokens'")
    assert left == 1
    assert await vault.examine() == []


async def test_it_is_over_in_time(vault: Vault, clock: FakeClock) -> None:
    """At its second."""
    _, token, text = await made(vault, clock)
    clock.advance(59)
    assert await vault.verify_token(text.encode()) == token
    clock.advance(1)
    assert await vault.verify_token(text.encode()) is None


async def test_nothing_of_it_is_stored(vault: Vault, clock: FakeClock, data: Path) -> None:
    """But the data key, once."""
    await made(vault, clock)
    generation = vault.generation
    parent = (await vault.list_tokens())[0]
    await vault.issue_short_lived(parent, NewShortLived(clock.now() + 9))
    assert vault.generation == generation
    [[purposes]] = rows(data, "SELECT count(*) FROM data_keys WHERE purpose = 'short-lived-tokens'")
    assert purposes == 1


async def test_what_ends_or_narrows_the_parent_reaches_it(vault: Vault, clock: FakeClock) -> None:
    """Revoked, expired, narrowed: at once, in whatever process it was done."""
    _, _, text = await made(vault, clock)
    await vault.change_token("default", "ada", {"hosts": ("c.example",)})
    token = await vault.verify_token(text.encode())
    assert token is not None and token.short is not None
    assert (token.narrowing, token.short.narrowing) == (Narrowing(("c.example",)), ONLY)
    await vault.revoke_token("default", "ada")
    assert await vault.verify_token(text.encode()) is None


async def test_it_is_never_wider_or_longer_than_its_parent(vault: Vault, clock: FakeClock) -> None:
    """Whatever it was asked for with."""
    new = NewToken("default", "ada", "call", frozenset({"cohere"}), {}, clock.now() + 30)
    parent, _ = await vault.issue_token(new)
    wanted = NewShortLived(clock.now() + 60, frozenset({"openai", "cohere"}))
    token, text = await vault.issue_short_lived(parent, wanted)
    assert (token.services, token.expires_at) == (frozenset({"cohere"}), clock.now() + 30)
    assert await vault.verify_token(text.encode()) == token
    alien, text = await vault.issue_short_lived(parent, NewShortLived(1e12, frozenset({"openai"})))
    assert alien.services == frozenset(), "none, and not all of them"
    assert await vault.verify_token(text.encode()) == alien


async def test_a_parent_that_is_widened_later_widens_none_that_is_out(
    vault: Vault, clock: FakeClock
) -> None:
    """It keeps what its parent was narrowed to then, member by member where nothing else was asked
    for; what the parent is narrowed to now holds as well."""
    narrow = Narrowing(("a.example",), ("/v1",), ("GET",), ("https://b.example",))
    new = NewToken("default", "ada", services=frozenset({"cohere"}), narrowing=narrow)
    parent, _ = await vault.issue_token(new)
    asked = Narrowing(paths=("/v1/chat",))
    given, text = await vault.issue_short_lived(
        parent, NewShortLived(clock.now() + 60, narrowing=asked)
    )
    kept = narrow._replace(paths=("/v1/chat",))
    assert given.short == ShortLived(given.short.serial, kept) if given.short else False
    wide = TokenChange(hosts=(), paths=(), methods=(), origins=("https://c.example",))
    await vault.change_token("default", "ada", wide)
    token = await vault.verify_token(text.encode())
    assert token is not None and token.short == given.short
    assert (token.services, token.narrowing) == (
        frozenset({"cohere"}),
        Narrowing(origins=("https://c.example",)),
    )


async def test_services_of_its_parent_are_written_into_it(vault: Vault, clock: FakeClock) -> None:
    """Also where other ones were asked for: those that both name."""
    parent, _ = await vault.issue_token(NewToken("default", "ada", services=frozenset({"cohere"})))
    for asked, kept in ((None, ["cohere"]), (frozenset({"cohere", "openai"}), ["cohere"])):
        _, text = await vault.issue_short_lived(parent, NewShortLived(clock.now() + 60, asked))
        claims = text.split("_")[2][:-58]
        said = json.loads(base64.b32decode(claims + "=" * (-len(claims) % 8)))
        assert said[2] == kept


async def test_every_changed_octet_ends_it(vault: Vault, clock: FakeClock) -> None:
    """Also where the checksum was made right again; and another data key's MAC is none."""
    _, _, text = await made(vault, clock)
    octets = text.encode()
    for place in range(len(octets)):
        for other in (b"A", b"7", b"_"):
            changed = octets[:place] + other + octets[place + 1 :]
            if changed != octets and place < len(octets) - 6:
                assert await vault.verify_token(changed) is None
                assert await vault.verify_token(checked(changed[:-6])) is None


async def test_claims_of_ones_own_are_worth_nothing(vault: Vault, clock: FakeClock) -> None:
    """The MAC is over all of it, the parent's id too."""
    parent, _, text = await made(vault, clock)
    claims = ["ab", clock.now() + 999, None, [[], [], [], []], None, ""]
    forged = base64.b32encode(json.dumps(claims).encode()).rstrip(b"=")
    mac = text.encode()[-58:-6]
    body = b"kr_" + parent.id.encode() + b"_" + forged
    assert await vault.verify_token(checked(body + mac)) is None
    other, _ = await vault.issue_token(NewToken("other", "eve"))
    moved = text.replace(parent.id, other.id).encode()
    assert await vault.verify_token(checked(moved[:-6])) is None


async def test_one_with_a_number_of_calls_ends_with_the_process(
    vault: Vault, clock: FakeClock, opener: Opener
) -> None:
    """Another one could not know how many were made."""
    _, token, text = await made(vault, clock, calls=3)
    assert await vault.verify_token(text.encode()) == token
    assert token.short is not None and token.short.calls == 3
    assert await (await opener()).verify_token(text.encode()) is None


async def test_leaks_and_logs_know_its_shape(vault: Vault, clock: FakeClock) -> None:
    """It is found where no token may stand, and told from a typo."""
    parent, _, text = await made(vault, clock)
    assert holds_token(b"x?y=" + text.encode())
    assert f"short-lived token of the id {parent.id}" in describe_token(text.encode())
    assert describe_token(text.encode()[:-1]) == "a token with a typo or a piece missing"


async def test_one_that_fits_no_header_field_is_refused(vault: Vault, clock: FakeClock) -> None:
    """4096 octets."""
    parent, _ = await vault.issue_token(NewToken("default", "ada"))
    paths = tuple(f"/{number}" * 50 for number in range(64))
    with pytest.raises(Invalid, match="too long for a header field"):
        wanted = NewShortLived(clock.now() + 60, None, Narrowing(paths=paths))
        await vault.issue_short_lived(parent, wanted)


async def test_several_openings_may_count_as_one(
    vault: Vault, clock: FakeClock, opener: Opener
) -> None:
    """Workers of one server: what one was given the other takes, although calls are counted."""
    _, token, text = await made(vault, clock, calls=5)
    other = await opener()
    assert await other.verify_token(text.encode()) is None
    for one in (vault, other):
        one.run_as("one run")
    _, token, text = await made_again(vault, clock)
    assert await other.verify_token(text.encode()) == token


async def made_again(vault: Vault, clock: FakeClock) -> tuple[Token, Token, str]:
    """A token with a number of calls, of a parent that is there."""
    [parent] = await vault.list_tokens()
    new = NewShortLived(clock.now() + 60, frozenset({"openai"}), ONLY, calls=5)
    return parent, *(await vault.issue_short_lived(parent, new))
