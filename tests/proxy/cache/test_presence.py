"""A key that is there is never said to be absent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.cache.presence import MOST, Presence

KEYS = st.sampled_from([b"abc-1", b"abc-2", b"abd", b"k", b"\xff\xff\xff"])


@settings(max_examples=50, deadline=None)
@given(st.lists(KEYS), st.lists(st.tuples(st.booleans(), KEYS)))
def test_a_key_that_is_there_is_never_hidden(
    first: list[bytes], changes: list[tuple[bool, bytes]]
) -> None:
    """Whatever comes and goes; keys that begin alike are taken for each other."""
    presence, held = Presence(), Counter(first)
    presence.count(first)
    for adds, key in changes:
        if adds:
            presence.add(key)
            held[key] += 1
        elif held[key]:
            presence.discard(key)
            held[key] -= 1
    assert all(presence.may_hold(key) for key in held.elements())
    assert not presence.may_hold(b"never seen")
    if not any(held.values()):
        assert not presence.may_hold(b"k")


def test_before_the_count_every_key_may_be_there() -> None:
    """And what comes and goes until then is not counted."""
    presence = Presence()
    presence.add(b"k")
    presence.discard(b"k")
    assert presence.may_hold(b"k")
    assert presence.may_hold(b"x")


def test_after_a_count_that_failed_every_key_may_be_there() -> None:
    """Half a count would hide the other half."""

    def broken() -> Iterator[bytes]:
        yield b"k"
        raise OSError

    presence = Presence()
    presence.count([b"k"])
    with pytest.raises(OSError):
        presence.count(broken())
    assert presence.may_hold(b"x")


def test_a_full_counter_stays() -> None:
    """It can't know any more when the last of its keys goes."""
    presence = Presence()
    presence.count([b"k"] * MOST)
    presence.add(b"k")
    for _ in range(MOST + 1):
        presence.discard(b"k")
    assert presence.may_hold(b"k")


def test_a_key_that_is_not_there_goes_without_harm() -> None:
    """Nothing is counted below none."""
    presence = Presence()
    presence.count([])
    presence.discard(b"k")
    presence.add(b"k")
    assert presence.may_hold(b"k")
