"""A slot for each call, from before it is sent to its end, whatever that is."""

from __future__ import annotations

import asyncio

import pytest

from proxy.bounds import ByService
from proxy.errors import AnswerTooLarge, Overloaded, UpstreamUnreachable
from proxy.upstream.admission import Admission
from proxy.upstream.sizes import Sized
from proxy.upstream.slots import SlotLimits, Slots
from tests.proxy.cache.conftest import a_call, a_grant
from tests.support.clock import FakeClock
from tests.support.upstream import FakeUpstream, Reply


def admission(upstream: FakeUpstream, total: float = 1) -> Admission:
    return Admission(upstream, Slots(SlotLimits(total=total, queue_length=1)), FakeClock())


async def whole(admission: Admission) -> tuple[float, bytes]:
    """The seconds that a call waited, and what it got."""
    call = a_call()
    async with admission.send(call, a_grant(), call.body) as response:
        return response.waited, b"".join([chunk async for chunk in response.body])


async def queued(admission: Admission, calls: int) -> None:
    async with asyncio.timeout(10):
        while admission.slots.waiting < calls:
            await asyncio.sleep(0)


async def test_a_call_that_finds_room_has_not_waited() -> None:
    """It leaves nothing behind."""
    gate = admission(FakeUpstream(Reply()))
    assert await whole(gate) == (0.0, b"hello")
    assert gate.slots.in_flight == 0


async def test_a_slot_is_held_until_the_body_has_been_relayed() -> None:
    """Not only until the header; the next call has waited for as long."""
    upstream = FakeUpstream()
    gate = admission(upstream)
    first = asyncio.create_task(whole(gate))
    exchange = await upstream.next()
    exchange.answer()
    exchange.chunk(b"a")
    second = asyncio.create_task(whole(gate))
    await queued(gate, 1)
    assert len(upstream.sent) == 1
    gate.clock.advance(2.5)  # type: ignore[attr-defined]
    exchange.end()
    assert await first == (0.0, b"a")
    (await upstream.next()).play(Reply())
    assert await second == (2.5, b"hello")
    assert gate.slots.in_flight == 0


@pytest.mark.parametrize("reply", [Reply(instead=UpstreamUnreachable("no")), Reply(cut=OSError())])
async def test_a_call_that_fails_gives_its_slot_back_once(reply: Reply) -> None:
    """Before its header, and in its body."""
    gate = admission(FakeUpstream(reply, Reply()))
    with pytest.raises((UpstreamUnreachable, OSError)):
        await whole(gate)
    assert gate.slots.in_flight == 0
    assert await whole(gate) == (0.0, b"hello")


@pytest.mark.parametrize("stage", ["waiting", "sent", "answered"])
async def test_a_caller_who_goes_gives_back_what_it_has(stage: str) -> None:
    """Its place in the queue, or its slot."""
    upstream = FakeUpstream()
    gate = admission(upstream)
    first = asyncio.create_task(whole(gate))
    exchange = await upstream.next()
    if stage == "answered":
        exchange.answer()
    second = asyncio.create_task(whole(gate))
    await queued(gate, 1)
    gone, stays = (second, first) if stage == "waiting" else (first, second)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    if stage == "waiting":
        exchange.answer()
        exchange.end()
    else:
        (await upstream.next()).play(Reply())
    await stays
    assert (gate.slots.in_flight, gate.slots.waiting) == (0, 0)


async def test_a_full_queue_is_a_refusal_and_nothing_is_sent() -> None:
    """503 at once."""
    upstream = FakeUpstream()
    gate = admission(upstream)
    calls = [asyncio.create_task(whole(gate)) for _ in range(2)]
    exchange = await upstream.next()
    await queued(gate, 1)
    with pytest.raises(Overloaded):
        await whole(gate)
    assert len(upstream.sent) == 1
    exchange.play(Reply())
    (await upstream.next()).play(Reply())
    await asyncio.gather(*calls)


async def test_calls_without_a_service_count_too() -> None:
    """They share one count, without a name."""
    upstream = FakeUpstream(Reply())
    gate = admission(upstream)
    call = a_call()
    async with gate.send(call, a_grant(service=None), call.body):
        assert gate.slots.loads()[""].in_flight == 1


# Sizes.


def sized(limit: int | None, *replies: Reply) -> Sized:
    return Sized(FakeUpstream(*replies), ByService(None, {"openai": limit}))


async def read(sized: Sized, method: str = "POST") -> bytes:
    call = a_call(method=method)
    async with sized.send(call, a_grant(), call.body) as response:
        return b"".join([chunk async for chunk in response.body])


async def test_an_answer_as_large_as_it_may_be_passes() -> None:
    """And any answer where there is no bound."""
    length = ((b"content-length", b"5"),)
    assert await read(sized(5, Reply(fields=length))) == b"hello"
    assert await read(sized(None, Reply())) == b"hello"


async def test_an_announced_answer_that_is_too_large_is_refused_at_its_header() -> None:
    """502 with the error name of RFC 9209."""
    with pytest.raises(AnswerTooLarge, match="4 octets") as failure:
        await read(sized(4, Reply(fields=((b"content-length", b"5"),))))
    assert (failure.value.status, failure.value.proxy_status) == (502, "http_response_body_size")


async def test_an_answer_that_grows_too_large_is_broken_off() -> None:
    """What is within the bound has been passed on by then."""
    bound = sized(8, Reply(chunks=(b"hello", b"you", b"!")))
    call, got = a_call(), b""
    with pytest.raises(AnswerTooLarge):
        async with bound.send(call, a_grant(), call.body) as response:
            async for chunk in response.body:
                got += chunk
    assert got == b"helloyou"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304)])
async def test_the_length_of_an_answer_without_a_body_is_no_size(method: str, status: int) -> None:
    """RFC 9110 section 8.6: it is what another answer would have."""
    reply = Reply(status, ((b"content-length", b"1000"),), ())
    assert await read(sized(4, reply), method) == b""


@pytest.mark.parametrize("octets", [b"1234", b"12345"])
async def test_an_answer_that_is_all_there_is_judged_at_once(octets: bytes) -> None:
    """It stays one piece."""
    upstream = FakeUpstream()
    bound = Sized(upstream, ByService(4))
    call = a_call()

    async def content() -> bytes | None:
        async with bound.send(call, a_grant(), call.body) as response:
            return response.content

    task = asyncio.create_task(content())
    (await upstream.next()).answer(content=octets)
    if len(octets) <= 4:
        assert await task == octets
    else:
        with pytest.raises(AnswerTooLarge):
            await task
