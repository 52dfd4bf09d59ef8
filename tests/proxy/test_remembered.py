"""Grants of equal headers, until something changes."""

from __future__ import annotations

from math import inf

from proxy.asgi import look_over
from proxy.call import Call, Directions
from proxy.destinations import parse_destination
from proxy.grant import Client, Grant, Place
from proxy.reach import Reach
from proxy.remembered import RememberedGrants
from tests.support.clock import FakeClock
from tests.support.outbound import Body
from vault import Holdings

TARGET = parse_destination("https://api.openai.com/v1")
GRANT = Grant("default", "caller", None, None, TARGET, Place.PROVIDER, Reach.PUBLIC)


def call(head: bytes) -> Call:
    return Call("GET", Directions(TARGET.url), (), Body(), "id", head)


def client(good_until: float = inf) -> Client:
    return Client("caller", Holdings("default"), good_until=good_until)


def test_an_equal_header_gets_the_same_grant_and_another_one_none() -> None:
    """By the hash of the whole header."""
    remembered = RememberedGrants(FakeClock(), lambda: 1)
    remembered.keep(call(b"one"), client(), GRANT, remembered.basis())
    assert remembered.grant(call(b"one")) is GRANT
    assert remembered.grant(call(b"two")) is None


def test_a_change_of_the_vault_or_the_services_forgets() -> None:
    """A revoked token, a removed key, a new backend."""
    generation = [1]
    remembered = RememberedGrants(FakeClock(), lambda: generation[0])
    remembered.keep(call(b"one"), client(), GRANT, remembered.basis())
    generation[0] = 2
    assert remembered.grant(call(b"one")) is None


def test_a_grant_ends_with_its_credential() -> None:
    """The token's expiry, or the grace of a rotated key."""
    clock = FakeClock()
    remembered = RememberedGrants(clock, lambda: 1)
    remembered.keep(call(b"one"), client(clock.now() + 60), GRANT, remembered.basis())
    clock.advance(59)
    assert remembered.grant(call(b"one")) is GRANT
    clock.advance(1)
    assert remembered.grant(call(b"one")) is None


def test_a_call_without_a_hash_is_not_remembered() -> None:
    """Nothing could tell it from another."""
    remembered = RememberedGrants(FakeClock(), lambda: 1)
    remembered.keep(call(b""), client(), GRANT, remembered.basis())
    assert remembered.grant(call(b"")) is None


def test_nothing_is_remembered_of_a_long_header() -> None:
    """The memories are bounded by number, so what each holds must be too."""
    for size, known in ((100, True), (60_000, False)):
        seen = look_over("GET", b"/proxy", ((b"x-long", b"y" * size),))
        assert bool(seen.hash) is known
        remembered = RememberedGrants(FakeClock(), lambda: 1)
        remembered.keep(call(seen.hash), client(), GRANT, remembered.basis())
        assert (remembered.grant(call(seen.hash)) is GRANT) is known
