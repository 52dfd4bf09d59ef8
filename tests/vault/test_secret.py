"""A secret does not show itself."""

from __future__ import annotations

import copy
import pickle

import pytest

from vault import Secret
from vault.secret import octets_of

LONG = b"sk-0123456789abcdef"


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{:>20}".format, lambda s: f"{s!r}"])
def test_a_secret_prints_as_dots(show) -> None:
    """No way of formatting shows the value."""
    assert show(Secret(LONG)) == "Secret(…)"


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_secret_cannot_be_pickled_or_copied(take) -> None:
    """What would write the value somewhere is refused."""
    with pytest.raises(TypeError):
        take(Secret(LONG))


def test_only_a_long_secret_shows_its_end() -> None:
    """Four characters of sixteen or more; nothing of fewer."""
    assert Secret(LONG).masked() == "…cdef"
    assert Secret(b"0123456789abcde").masked() == "…"
    assert Secret(b"0123456789abcde\xff").masked() == "…cde�"


def test_secrets_compare_by_value_and_hash_not_at_all() -> None:
    """Equality is in constant time; a secret is no dictionary key."""
    assert Secret(LONG) == Secret(LONG)
    assert Secret(LONG) != Secret(b"other")
    assert Secret(LONG) != LONG
    with pytest.raises(TypeError):
        hash(Secret(LONG))


def test_the_octets_come_out_where_they_are_needed() -> None:
    """For a request, and inside the vault."""
    assert Secret(LONG).reveal() == octets_of(Secret(LONG)) == LONG
