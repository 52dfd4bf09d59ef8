"""What a name may look like."""

from __future__ import annotations

import pytest

from vault import Binding, Invalid, NotThere, Vault
from vault.names import check_binding, check_names, check_role, check_token_name
from vault.tokens import mint


@pytest.mark.parametrize("name", ["a", "0", "openai-2_x", "a" * 64])
def test_names_are_plain(name: str) -> None:
    """Small letters, digits, underscore and hyphen."""
    check_names(tenant=name)
    check_token_name(name)


@pytest.mark.parametrize("name", ["", "-a", "_a", "A", "a b", "a.b", "ä", "a\n", "a" * 65, "١"])
def test_other_names_are_refused_with_the_rule(name: str) -> None:
    """The message names what was wrong and what is right."""
    with pytest.raises(Invalid, match=r"^alias .* is not a name; use up to 64 of a-z"):
        check_names(tenant="fine", alias=name)


def test_token_names_may_look_like_addresses() -> None:
    """Capitals, dots and at signs, but no white space."""
    check_token_name("Ada.Lovelace@example.org")
    with pytest.raises(Invalid, match="token name 'Ada Lovelace' is not acceptable"):
        check_token_name("Ada Lovelace")


def test_a_token_is_no_name_and_not_repeated() -> None:
    """A name stands in lists, in the audit log and in logs."""
    text = mint().text
    with pytest.raises(Invalid, match="a name, not a token") as refused:
        check_token_name(text)
    assert text not in str(refused.value)


async def test_a_token_given_for_a_name_is_not_repeated(vault: Vault) -> None:
    """Whoever revokes by a token's text sees it nowhere but where they typed it."""
    text = mint().text
    with pytest.raises(NotThere, match="has no token of that text") as refused:
        await vault.revoke_token("default", text)
    assert text not in str(refused.value)


def test_roles_are_three() -> None:
    """`call`, `read`, `admin`."""
    check_role("admin")
    with pytest.raises(Invalid, match="use one of call, read, admin"):
        check_role("root")


@pytest.mark.parametrize(
    "binding",
    [
        Binding("ftp", "h", 21),
        Binding("http", "", 80),
        Binding("http", "*", 80),
        Binding("http", "h", 0),
        Binding("http", "h", 65536),
        Binding("http", "h", 80, "a"),
    ],
)
def test_only_a_place_is_stored(binding: Binding) -> None:
    """A scheme, a host, a port and a path."""
    check_binding(Binding("http", "h", 80))
    with pytest.raises(Invalid, match="is not a place"):
        check_binding(binding)
