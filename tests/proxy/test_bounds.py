"""The bounds that a caller meets: how much it may send, and how long it wants to wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.bounds import Bounded, ByService, patience
from proxy.call import Call
from proxy.errors import BadRequest, BodyTooLarge, CallTimeout
from proxy.grant import Grant
from proxy.messages import Response
from tests.proxy.cache.conftest import Body, a_call, a_grant


def asking(*values: bytes) -> Any:
    return tuple((b"x-relay-timeout", value) for value in values)


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"30", 30.0), (b"2.5", 2.5), (b"0.05", 0.05), (b"999999", 999999.0)]
)
def test_a_caller_says_its_time_in_seconds(value: bytes, seconds: float) -> None:
    """Whole or decimal."""
    assert patience(asking(value)) == seconds
    assert patience(((b"accept", b"*/*"),)) is None


@pytest.mark.parametrize(
    "values",
    [(b"",), (b"0",), (b"0.0",), (b"-1",), (b"+1",), (b"1e3",), (b".5",), (b"5.",), (b"30s",),
     (b"inf",), (b"nan",), (b"1000000",), (b"1 ",), ("\u0661".encode(),), (b"5", b"5")],
)  # fmt: skip
def test_a_time_that_can_not_be_read_is_refused(values: tuple[bytes, ...]) -> None:
    """400, and the remedy shows how; two of them are none."""
    with pytest.raises(BadRequest, match=r"such as 30 or 2\.5") as failure:
        patience(asking(*values))
    assert failure.value.param == "X-Relay-Timeout"


def test_a_setting_is_the_usual_one_but_for_those_named() -> None:
    """A call without a service has the usual one; another one may take its place."""
    setting = ByService(1, {"openai": 2})
    assert setting.of(a_grant()) == 2
    assert setting.of(a_grant(service=None)) == 1
    setting.become(ByService(3))
    assert setting.of(a_grant()) == 3


class Inner:
    """Answers with the body that it was sent; waits where it is told to."""

    def __init__(self, silent: str = "") -> None:
        self.silent = silent
        self.over = 0
        self.at_hand: bytes | None = None

    @asynccontextmanager
    async def fetch(self, call: Call, grant: Grant) -> AsyncIterator[Response]:
        assert grant.tenant == "default"
        try:
            if self.silent == "header":
                await asyncio.Event().wait()
            self.at_hand = call.body.at_hand()
            yield Response(200, (), self.body(call))
        finally:
            self.over += 1

    async def body(self, call: Call) -> AsyncIterator[bytes]:
        async for chunk in call.body:
            yield chunk
        if self.silent == "body":
            await asyncio.Event().wait()


async def answer(inner: Inner, call: Call, limit: int | None = None) -> bytes:
    async with Bounded(inner, ByService(limit)).fetch(call, a_grant()) as response:
        return b"".join([chunk async for chunk in response.body])


@pytest.mark.parametrize("silent", ["header", "body"])
async def test_a_caller_is_let_go_when_its_time_is_over(silent: str) -> None:
    """504, before the header and in the body; everything is cleaned up."""
    inner = Inner(silent)
    with pytest.raises(CallTimeout, match=r"0\.01 s of X-Relay-Timeout") as failure:
        await answer(inner, a_call(fields=asking(b"0.01")))
    assert (failure.value.status, inner.over) == (504, 1)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_call_within_its_time_is_as_any_other() -> None:
    """Nothing fires later."""
    inner = Inner()
    assert await answer(inner, a_call(fields=asking(b"0.05"), body=Body(b"a", b"b"))) == b"ab"
    await asyncio.sleep(0.1)
    assert inner.over == 1


async def test_a_caller_that_hangs_up_is_not_told_that_its_time_is_over() -> None:
    """A cancellation stays one."""
    task = asyncio.create_task(answer(Inner("header"), a_call(fields=asking(b"60"))))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_of_somebody_else_stays_one() -> None:
    """Only the caller's own deadline is a CallTimeout."""

    class Failing(Inner):
        async def body(self, call: Call) -> AsyncIterator[bytes]:
            assert call.fields
            raise TimeoutError("another one")
            yield b""

    with pytest.raises(TimeoutError, match="another one"):
        await answer(Failing(), a_call(fields=asking(b"60")))


async def test_a_body_that_says_that_it_is_too_large_is_refused_unread() -> None:
    """413 at once."""
    body = Body(b"hello")
    with pytest.raises(BodyTooLarge, match="4 octets") as failure:
        await answer(Inner(), a_call(body=body), 4)
    assert (failure.value.status, body.read) == (413, 0)


async def test_a_body_that_grows_too_large_is_refused_there() -> None:
    """One without a length is counted as it comes; one as large as the bound passes."""
    body = Body(b"he", b"ll", b"o", b"!", announced=False)
    with pytest.raises(BodyTooLarge):
        await answer(Inner(), a_call(body=body), 4)
    assert body.read == 5
    assert await answer(Inner(), a_call(body=Body(b"hell", announced=False)), 4) == b"hell"


@pytest.mark.parametrize("octets", [b"hell", b"hello"])
async def test_a_body_that_has_come_already_is_measured_whole(octets: bytes) -> None:
    """Whoever takes all of it at once."""

    class Come(Body):
        def at_hand(self) -> bytes | None:
            return b"".join(self.chunks)

    inner = Inner()
    call = a_call(body=Come(octets, announced=False))
    if len(octets) <= 4:
        await answer(inner, call, 4)
        assert inner.at_hand == octets
    else:
        with pytest.raises(BodyTooLarge):
            await answer(inner, call, 4)


async def test_no_body_is_never_too_large() -> None:
    """It is passed on as it is."""
    call = a_call(body=Body())
    assert await answer(Inner(), call, 1) == b""
