"""Wrong tokens by address: bounded, and nobody locks out those who share an address."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from proxy.errors import TooManyGuesses
from proxy.guesses import ADDRESSES, Guesses
from proxy.limits.grammar import parse_rate
from tests.support.clock import FakeClock
from tests.support.relay import running_relay


def tired(most: str = "3/minute") -> tuple[Guesses, FakeClock]:
    """Of one address the bound is reached."""
    clock = FakeClock()
    guesses = Guesses(parse_rate(most), clock)
    guesses.right(b"kr_good")
    for number in range(3):
        guesses.check("192.0.2.7", b"kr_%d" % number)
        guesses.wrong("192.0.2.7", b"kr_%d" % number)
    return guesses, clock


def test_above_the_bound_nothing_new_is_judged_for_a_time() -> None:
    """It says how long, and then there is room for as many again."""
    guesses, clock = tired()
    clock.advance(20)
    with pytest.raises(TooManyGuesses, match="in 40 seconds") as caught:
        guesses.check("192.0.2.7", b"kr_new")
    assert caught.value.retry_after == 40
    clock.advance(40)
    guesses.check("192.0.2.7", b"kr_new")
    guesses.wrong("192.0.2.7", b"kr_new")
    guesses.check("192.0.2.7", b"kr_new")


def test_what_was_good_before_goes_on_until_it_is_not() -> None:
    """From any address; a revoked one is wrong once, and then like any other."""
    guesses, _ = tired()
    guesses.check("192.0.2.7", b"kr_good")
    guesses.wrong("192.0.2.7", b"kr_good")
    with pytest.raises(TooManyGuesses):
        guesses.check("192.0.2.7", b"kr_good")


@pytest.mark.parametrize(("machines", "pass_here"), [(0, 6), (1, 6), (3, 2), (99, 1)])
def test_of_several_machines_each_has_a_share(machines: int, pass_here: int) -> None:
    """At least one; where their number isn't known, all of it."""
    guesses, wrong = Guesses(parse_rate("6/minute"), FakeClock(), lambda: machines), 0
    with pytest.raises(TooManyGuesses):
        while True:
            guesses.check("192.0.2.7", b"kr_new")
            guesses.wrong("192.0.2.7", b"kr_new")
            wrong += 1
    assert wrong == pass_here


def test_other_addresses_are_not_bounded_by_it() -> None:
    """An address of IPv6 counts with its /64; IPv4 in IPv6 is IPv4; none at all is not counted."""
    guesses, _ = tired()
    guesses.check("192.0.2.8", b"kr_new")
    with pytest.raises(TooManyGuesses):
        guesses.check("::ffff:192.0.2.7", b"kr_new")
    for number in range(3):
        guesses.wrong(f"2001:db8::{number}", b"kr_x")
        guesses.wrong("", b"kr_x")
    with pytest.raises(TooManyGuesses):
        guesses.check("2001:db8::ffff:1", b"kr_new")
    guesses.check("2001:db8:0:1::1", b"kr_new")
    guesses.check("", b"kr_new")


def test_memory_is_bounded() -> None:
    """The oldest window leaves first."""
    guesses = Guesses(parse_rate("1/minute"), FakeClock())
    for number in range(ADDRESSES + 10):
        guesses.wrong(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", b"kr_x")
    assert len(guesses) == ADDRESSES
    guesses.check("10.0.0.0", b"kr_new")


def test_without_a_rate_nothing_is_counted() -> None:
    """And one that is taken away bounds nobody any more."""
    guesses, _ = tired()
    guesses.become(None)
    guesses.check("192.0.2.7", b"kr_new")
    guesses.wrong("192.0.2.7", b"kr_new")
    guesses.become(parse_rate("4/minute"))
    guesses.check("192.0.2.7", b"kr_new")


async def test_a_server_refuses_the_fourth_wrong_token(tmp_path: Path) -> None:
    """With 429, and the good one goes on; no token at all is a 401 each time."""
    settings = "limits: {wrong_tokens: 3/hour}\n"
    async with (
        running_relay(tmp_path / "data", None, settings) as up,
        httpx.AsyncClient() as client,
    ):

        async def call(token: str | None) -> httpx.Response:
            fields = {"Authorization": f"Bearer {token}"} if token else {}
            return await client.get(f"{up.url}/proxy?server=https://a.example", headers=fields)

        assert (await call(up.token)).status_code == 403
        assert [(await call(f"kr_{n}")).status_code for n in range(4)] == [401, 401, 401, 429]
        refused = await call("sk-some-other-credential")
        assert refused.json()["error"]["code"] == "too_many_wrong_tokens"
        assert int(refused.headers["retry-after"]) <= 60
        assert (await call(up.token)).status_code == 403
        assert (await call(None)).status_code == 401


PAGES = ("/usage", "/health", "/health/openai", "/status", "/metrics", "/admin/api/v1/tenant")


async def test_wrong_tokens_count_wherever_one_is_judged(tmp_path: Path) -> None:
    """Pages, `POST /tokens`, the admin API and the form of people count together with calls."""
    settings = "limits: {wrong_tokens: 9/hour}\n"
    async with (
        running_relay(tmp_path / "data", None, settings) as up,
        httpx.AsyncClient(base_url=up.url) as client,
    ):
        admin = await up.issue("ada", role="admin")
        numbers = iter(range(100))

        async def page(path: str, token: str = "") -> int:
            fields = {"Authorization": f"Bearer {token or f'kr_{next(numbers)}'}"}
            return (await client.get(path, headers=fields)).status_code

        async def exchange() -> int:
            fields = {"Authorization": f"Bearer kr_{next(numbers)}"}
            return (await client.post("/tokens", json={}, headers=fields)).status_code

        async def form() -> httpx.Response:
            said = {"token": f"kr_{next(numbers)}"}
            return await client.post("/admin/login", data=said, headers={"Origin": up.url})

        assert await page("/usage", admin) == 200
        assert [await page(path) for path in PAGES] == [401] * len(PAGES)
        assert (await exchange(), (await form()).status_code) == (401, 401)
        assert await page("/proxy?server=https://a.example") == 401
        assert [await page(path) for path in PAGES] == [429] * len(PAGES)
        assert await exchange() == 429
        assert "Too many wrong tokens" in (await form()).text
        assert [await page(path, admin) for path in ("/usage", "/health")] == [200, 200]
        assert (await client.get("/usage")).status_code == 401
        assert (await client.get("/health/ready")).status_code == 200
