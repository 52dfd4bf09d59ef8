"""What callers see of the cache: contract 6, rule by rule, on a real store."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace
from typing import Any

import pytest

from proxy.cache import cache as cache_module
from proxy.cache.cache import Cache
from proxy.cache.entry import Miss, SchemaTooNew, StoreError
from proxy.cache.policy import CacheSettings
from proxy.errors import BadCall, UpstreamIncomplete, UpstreamTimeout
from proxy.messages import values
from tests.proxy.cache.conftest import (
    HOUR,
    NOW,
    SERVICE,
    TARGET,
    Body,
    Reader,
    a_call,
    a_grant,
    a_keyer,
    until,
)
from tests.proxy.cache.test_sqlite import change
from tests.support.clock import FakeClock
from tests.support.upstream import Reply
from vault import KeyRef, Purge

LARGE = os.urandom(600_000)
EVENTS = tuple(b"data: %d\n\n" % number for number in range(20))


# The table of contract 6.


async def test_no_cache_is_neither_looked_up_nor_kept(opened: Any) -> None:
    """Contract 6: no `cache`."""
    async with opened(Reply()) as bench:
        await bench.get()
        plain = await bench.get(a_call(None))
        assert plain.verdict == "keyrelay; fwd=bypass"
        assert len(bench.upstream.sent) == 2
        assert bench.upstream.sent[1].body == b"{}"


async def test_no_cache_is_not_collapsed(opened: Any) -> None:
    """Two such calls are two calls."""
    async with opened() as bench:
        bench.begin(a_call(None))
        bench.begin(a_call(None))
        await bench.upstream.next()
        await bench.upstream.next()
        assert len(bench.upstream.sent) == 2


async def test_the_second_call_is_a_hit(opened: Any) -> None:
    """Contract 6: `cache=T`, T in the future."""
    async with opened(Reply(201, ((b"x", b"1"),), (b"a", b"b"))) as bench:
        first = await bench.get()
        bench.clock.advance(7)
        second = await bench.get()
        assert first.verdict == "keyrelay; fwd=uri-miss; fwd-status=201; stored; ttl=3600"
        assert second.verdict == "keyrelay; hit; ttl=3593"
        assert (second.status, second.body) == (201, b"ab") == (first.status, first.body)
        assert second.fields[:2] == ((b"x", b"1"), (b"age", b"7"))
        assert len(bench.upstream.sent) == 1


async def test_what_is_in_memory_can_be_counted(opened: Any) -> None:
    """Beside what is stored."""
    async with opened(Reply()) as bench:
        assert bench.cache.in_memory.entries == 0
        await bench.get()
        assert bench.cache.in_memory.entries == 1


async def test_who_traces_knows_whether_there_is_a_look_up(opened: Any) -> None:
    """Not without a time, past what is stored, or where the body is too much to be keyed."""
    async with opened(max_keyed_body_bytes=10) as bench:
        large = a_call(body=Body(b"x" * 11))
        calls = [a_call(), a_call(None), a_call(invalidate=True), large]
        assert [bench.cache.looks_up(call) for call in calls] == [True, False, False, False]


async def test_a_hit_survives_a_restart(opened: Any) -> None:
    """Contract 6: entries survive a restart; from disk, then from memory."""
    async with opened(Reply()) as bench:
        await bench.get()
    async with opened() as bench:
        assert (await bench.get()).hit
        again = await bench.get()
        assert again.hit
        assert again.body == b"hello"


async def test_max_ttl_caps_the_time(opened: Any) -> None:
    """Contract 6: the answer's `ttl` shows it."""
    async with opened(Reply(), max_ttl=60) as bench:
        assert (await bench.get()).verdict.endswith("stored; ttl=60")
        bench.clock.advance(60)
        assert "fwd=stale" in (await bench.get()).verdict


async def test_an_entry_is_over_at_its_timestamp(opened: Any) -> None:
    """Contract 6: at its timestamp an entry is over, also on disk."""
    async with opened(Reply()) as bench:
        await bench.get()
        bench.clock.advance(3600)
    async with opened(Reply(), clock=FakeClock(HOUR)) as bench:
        assert "fwd=stale" in (await bench.get(a_call(HOUR + 60))).verdict


async def test_a_past_time_is_looked_up_and_not_kept(opened: Any) -> None:
    """Contract 6: `cache=T`, T past."""
    async with opened(Reply()) as bench:
        past = a_call(NOW - 1)
        assert (await bench.get(past)).verdict == "keyrelay; fwd=uri-miss; fwd-status=200"
        assert not (await bench.get(past)).hit
        await bench.get()
        assert (await bench.get(past)).hit
        assert len(bench.upstream.sent) == 3


async def test_a_duration_is_told(opened: Any) -> None:
    """Contract 6: below 10^9 with `detail=cache-is-a-point-in-time`, on a hit too."""
    async with opened(Reply()) as bench:
        assert "detail=cache-is-a-point-in-time" in (await bench.get(a_call(3600))).verdict
        await bench.get()
        hit = await bench.get(a_call(3600))
        assert hit.verdict == "keyrelay; hit; ttl=3600; detail=cache-is-a-point-in-time"


async def test_invalidate_replaces_the_entry(opened: Any) -> None:
    """Contract 6: `cache=T&invalidate`."""
    async with opened(Reply(chunks=(b"old",)), Reply(chunks=(b"new",))) as bench:
        await bench.get()
        fresh = await bench.get(a_call(HOUR + 60, invalidate=True))
        assert fresh.verdict == "keyrelay; fwd=request; fwd-status=200; stored; ttl=3660"
        hit = await bench.get()
        assert (hit.body, hit.verdict) == (b"new", "keyrelay; hit; ttl=3660")
        await bench.landed()
    async with opened() as bench:
        assert (await bench.get()).body == b"new"


@pytest.mark.parametrize(
    "failing",
    [
        Reply(500),
        Reply(cut=UpstreamIncomplete("cut")),
        Reply(instead=UpstreamTimeout("late")),
        Reply(spoiled=lambda: True),
    ],
)
async def test_a_failed_refresh_leaves_the_old_entry(opened: Any, failing: Reply) -> None:
    """Contract 6: if the refresh fails, the old entry stays."""
    async with opened(Reply(chunks=(b"old",)), failing) as bench:
        await bench.get()
        await asyncio.gather(bench.begin(a_call(invalidate=True)), return_exceptions=True)
        hit = await bench.get()
        assert (hit.hit, hit.body) == (True, b"old")


async def test_invalidate_alone_leaves_the_entry_for_others(opened: Any) -> None:
    """Contract 6: `invalidate` alone."""
    async with opened(Reply(chunks=(b"old",)), Reply(chunks=(b"new",))) as bench:
        await bench.get()
        fresh = await bench.get(a_call(None, invalidate=True))
        assert (fresh.body, fresh.verdict) == (b"new", "keyrelay; fwd=request")
        assert (await bench.get()).body == b"old"


async def test_a_later_request_neither_lengthens_nor_shortens(opened: Any) -> None:
    """Contract 6: a hit needs an entry whose *own* time is ahead."""
    async with opened(Reply()) as bench:
        await bench.get()
        assert (await bench.get(a_call(HOUR + 999))).verdict == "keyrelay; hit; ttl=3600"
        assert (await bench.get(a_call(NOW + 1))).verdict == "keyrelay; hit; ttl=3600"
        bench.clock.advance(3600)
        assert not (await bench.get(a_call(HOUR + 999))).hit


async def test_a_clock_set_back_does_not_lengthen_an_entry(opened: Any) -> None:
    """Its time is a point in time."""
    async with opened(Reply()) as bench:
        await bench.get()
        bench.clock.be_set(-1000)
        early = await bench.get()
        assert early.hit
        assert (b"age", b"0") in early.fields
        bench.clock.advance(4600)
        assert not (await bench.get()).hit


# What is kept.


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_pass(opened: Any, method: str) -> None:
    """Contract 6: GET, HEAD, POST."""
    async with opened(Reply()) as bench:
        for _ in range(2):
            assert (await bench.get(a_call(method=method))).verdict == "keyrelay; fwd=method"
        assert len(bench.upstream.sent) == 2


@pytest.mark.parametrize(
    ("reply", "detail"),
    [
        (Reply(404), "status-not-kept"),
        (Reply(206), "status-not-kept"),
        (Reply(complete_at_close=True), "close-delimited"),
        (Reply(fields=((b"vary", b"*"),)), "vary-any"),
        (Reply(fields=((b"content-length", b"99999999"),), chunks=()), "answer-too-large"),
    ],
)
async def test_what_is_not_kept_says_why(opened: Any, reply: Reply, detail: str) -> None:
    """Contract 6: kept are complete 2xx except 206; the next call goes out again."""
    async with opened(reply) as bench:
        call = a_call(method="HEAD" if detail == "answer-too-large" else "GET")
        if detail == "answer-too-large":
            call = a_call(method="GET")
            async with Reader(bench, call) as reader:
                assert reader.verdict.endswith(f"fwd-status=200; detail={detail}")
        else:
            first = await bench.get(call)
            assert first.verdict.endswith(f"fwd-status={reply.status}; detail={detail}")
            assert first.body == b"hello"
            assert not (await bench.get(call)).hit


async def test_no_store_counts_where_the_service_honours_it(opened: Any) -> None:
    """Contract 6: the caller's `cache=` wins otherwise."""
    reply = Reply(fields=((b"cache-control", b"no-store"),))
    honouring = a_grant(service=replace(SERVICE, honour_no_store=True))
    async with opened(reply) as bench:
        assert "detail=no-store" in (await bench.get(grant=honouring)).verdict
        assert "; stored" in (await bench.get()).verdict


async def test_a_cut_answer_is_cut_and_not_kept(opened: Any) -> None:
    """Contract 6: never a response that was cut or timed out."""
    async with opened(Reply(cut=UpstreamTimeout("idle")), Reply(chunks=(b"whole",))) as bench:
        async with Reader(bench) as reader:
            assert await reader.piece() == b"hello"
            with pytest.raises(UpstreamIncomplete):
                await reader.piece()
        assert (await bench.get()).body == b"whole"


@pytest.mark.parametrize("announced", [b"4", b"6"])
async def test_an_answer_of_another_length_is_cut(opened: Any, announced: bytes) -> None:
    """A cut answer never looks whole."""
    reply = Reply(fields=((b"content-length", announced),))
    async with opened(reply) as bench:
        with pytest.raises(UpstreamIncomplete):
            await bench.get()
        with pytest.raises(UpstreamIncomplete):
            await bench.get()


async def test_an_answer_with_the_injected_key_is_not_kept(opened: Any) -> None:
    """Contract 5: an answer whose stored form would contain the key is not stored."""
    async with opened(Reply(spoiled=lambda: True), Reply(spoiled=lambda: False)) as bench:
        assert (await bench.get()).body == b"hello"
        assert not (await bench.get()).hit
        assert (await bench.get()).hit


async def test_head_has_its_own_key_and_replays_without_a_body(opened: Any) -> None:
    """Contract 6: HEAD; its content-length stays."""
    fields = ((b"content-length", b"5000"),)
    async with opened(Reply(fields=fields, chunks=()), Reply()) as bench:
        await bench.get(a_call(method="HEAD"))
        await bench.landed()
        hit = await bench.get(a_call(method="HEAD"))
        assert (hit.hit, hit.body, hit.fields[0]) == (True, b"", fields[0])
        assert not (await bench.get(a_call(method="GET"))).hit


async def test_an_answer_that_took_too_long_is_not_kept(opened: Any) -> None:
    """Its time came while it was under way."""
    async with opened() as bench:
        caller = bench.begin(a_call(NOW + 5))
        exchange = await bench.upstream.next()
        bench.clock.advance(5)
        exchange.play(Reply())
        assert (await caller).body == b"hello"
        await bench.landed()
        assert (await bench.cache.stats()).entries == 0


async def test_an_answer_above_the_limit_passes_whole_and_is_not_kept(opened: Any) -> None:
    """Contract 6: up to `max_entry_bytes`."""
    chunks = tuple(LARGE[start : start + 50_000] for start in range(0, len(LARGE), 50_000))
    async with opened(Reply(chunks=chunks), max_entry_bytes=200_000) as bench:
        assert (await bench.get()).body == LARGE
        await bench.landed()
        assert not (await bench.get()).hit


async def test_age_counts_the_time_in_other_caches(opened: Any) -> None:
    """RFC 9111 section 4.2.3; and connection fields are not replayed."""
    fields = ((b"age", b"100"), (b"transfer-encoding", b"chunked"), (b"etag", b"e"))
    async with opened(Reply(fields=fields)) as bench:
        assert (b"age", b"100") in (await bench.get()).fields
        bench.clock.advance(5)
        hit = await bench.get()
        assert hit.fields[:2] == ((b"etag", b"e"), (b"age", b"105"))
        assert len(hit.fields) == 3


async def test_our_cache_status_stands_behind_the_upstreams(opened: Any) -> None:
    """RFC 9211 section 2: the list has the cache nearest to the origin first."""
    async with opened(Reply(fields=((b"cache-status", b"CDN; hit"),))) as bench:
        first = await bench.get()
        hit = await bench.get()
        assert values(first.fields, b"cache-status")[0] == b"CDN; hit"
        assert values(hit.fields, b"cache-status") == [b"CDN; hit", b"keyrelay; hit; ttl=3600"]


async def test_a_stream_is_replayed_octet_for_octet(opened: Any) -> None:
    """Contract 6: a stream (SSE) is kept as it came; the first caller gets it event by event."""
    async with opened() as bench:
        reading = asyncio.create_task(Reader(bench).__aenter__())
        exchange = await bench.upstream.next()
        exchange.answer(200, ((b"content-type", b"text/event-stream"),))
        reader = await reading
        for event in EVENTS:
            exchange.chunk(event)
            assert await reader.piece() == event
        exchange.end()
        assert await reader.rest() == b""
        await reader.__aexit__(None, None, None)
        hit = await bench.get()
        assert (hit.hit, hit.body) == (True, b"".join(EVENTS))


async def test_a_large_answer_is_a_hit_from_the_disk(opened: Any) -> None:
    """Larger than the memory takes; also while it is still being written."""
    async with opened(Reply(chunks=(LARGE,)), spool_memory_bytes=1000) as bench:
        assert (await bench.get()).body == LARGE
        at_once = await bench.get()
        assert (at_once.hit, at_once.body) == (True, LARGE)
        await bench.landed()
        hit = await bench.get()
        assert (hit.hit, hit.body, len(bench.upstream.sent)) == (True, LARGE, 1)


async def test_a_large_refresh_is_what_the_next_call_gets(opened: Any) -> None:
    """Not the small old answer that is still in memory."""
    replies = (Reply(chunks=(b"old",)), Reply(chunks=(LARGE,)))
    async with opened(*replies, spool_memory_bytes=1000) as bench:
        await bench.get()
        await bench.get(a_call(invalidate=True))
        assert (await bench.get()).body == LARGE
        await bench.landed()
        assert (await bench.get()).body == LARGE


# Who gets what.


async def test_nothing_crosses_between_tenants(opened: Any) -> None:
    """Contract 1."""
    async with opened(Reply()) as bench:
        await bench.get()
        assert not (await bench.get(grant=a_grant("other"))).hit
        other_key = a_grant(key=KeyRef("default", "openai", "second", 1))
        assert not (await bench.get(grant=other_key)).hit
        assert (await bench.get()).hit


async def test_a_new_version_of_a_key_keeps_the_answers(opened: Any) -> None:
    """Contract 6: the alias is in the key, not the version."""
    async with opened(Reply()) as bench:
        await bench.get()
        rotated = a_grant(key=KeyRef("default", "openai", "main", 2))
        assert (await bench.get(grant=rotated)).hit


async def test_vary_keeps_variants_side_by_side(opened: Any) -> None:
    """Contract 6: what a stored `Vary` names, noise too; from memory and from disk."""
    one = a_call(fields=((b"user-agent", b"one"),))
    two = a_call(fields=((b"user-agent", b"two"),))
    vary = ((b"vary", b"User-Agent, Accept-Encoding"),)
    replies = (Reply(fields=vary, chunks=(b"1",)), Reply(fields=vary, chunks=(b"2",)))
    async with opened(*replies) as bench:
        await bench.get(one)
        assert "fwd=vary-miss" in (await bench.get(two)).verdict
        assert [(await bench.get(c)).body for c in (one, two)] == [b"1", b"2"]
        await bench.landed()
    async with opened(Reply()) as bench:
        assert [(await bench.get(c)).body for c in (one, two)] == [b"1", b"2"]
        assert "fwd=vary-miss" in (await bench.get()).verdict


async def test_a_refused_call_stays_refused(opened: Any) -> None:
    """The spine has judged it already."""
    async with opened(Reply()) as bench:
        with pytest.raises(BadCall):
            await bench.get(a_call()._replace(directions=BadCall("no")))


async def test_a_grant_without_a_service_is_kept_too(opened: Any) -> None:
    """A registered backend of no service."""
    grant = a_grant(service=None, key=None)
    async with opened(Reply()) as bench:
        await bench.get(grant=grant)
        assert (await bench.get(grant=grant)).hit
        await bench.cache.purge(Purge(NOW, "default", ""))
        assert not (await bench.get(grant=grant)).hit


# Request bodies.


async def test_a_body_is_keyed_and_sent_as_it_came(opened: Any) -> None:
    """In chunks of any size; also from the disk."""
    async with opened(Reply(), spool_memory_bytes=10) as bench:
        await bench.get(a_call(body=Body(LARGE[:30], LARGE[30:], announced=False)))
        assert bench.upstream.sent[0].body == LARGE
        assert (await bench.get(a_call(body=Body(LARGE)))).hit
        assert not (await bench.get(a_call(body=Body(LARGE[1:])))).hit


async def test_a_body_announced_too_large_is_not_read(opened: Any) -> None:
    """Contract 6: by Content-Length without reading it; `Cache-Status` says so."""
    async with opened(Reply(), max_keyed_body_bytes=10) as bench:
        for _ in range(2):
            answer = await bench.get(a_call(body=Body(b"x" * 11)))
            assert answer.verdict == "keyrelay; fwd=bypass; detail=body-too-large"
        assert bench.upstream.sent[1].body == b"x" * 11


async def test_a_chunked_body_too_large_streams_on(opened: Any) -> None:
    """Contract 6: what was read and the rest, unlooked-up and unkept."""
    async with opened(Reply(), max_keyed_body_bytes=10) as bench:
        body = Body(b"x" * 6, b"y" * 6, b"z", announced=False)
        answer = await bench.get(a_call(body=body))
        assert answer.verdict == "keyrelay; fwd=bypass; detail=body-too-large"
        assert bench.upstream.sent[0].body == b"x" * 6 + b"y" * 6 + b"z"
        assert (await bench.cache.stats()).entries == 0


# Purges.


async def test_a_purge_ends_what_was_stored(opened: Any) -> None:
    """At once, in memory and on disk; the same one again does nothing."""
    async with opened(Reply()) as bench:
        await bench.get()
        await bench.landed()
        purge = Purge(NOW, "default", "openai")
        await bench.cache.purge(purge)
        assert (await bench.cache.stats()).entries == 0
        bench.clock.advance(1)
        assert not (await bench.get()).hit
        await bench.cache.purge(purge)
        assert (await bench.get()).hit


async def test_a_purge_of_others_leaves_the_answer(opened: Any) -> None:
    """By tenant and service."""
    async with opened(Reply()) as bench:
        await bench.get()
        bench.cache.apply_purges((Purge(NOW, "other", None), Purge(NOW, None, "groq")))
        assert (await bench.get()).hit


async def test_a_flight_begun_before_a_purge_is_not_kept(opened: Any) -> None:
    """And nobody joins it any more."""
    async with opened() as bench:
        early = bench.begin()
        first = await bench.upstream.next()
        await bench.cache.purge(Purge(NOW, None, None))
        await bench.cache.purge(Purge(NOW, "nobody", None))
        bench.clock.advance(1)
        late = bench.begin()
        second = await bench.upstream.next()
        await bench.cache.purge(Purge(NOW + 0.5, "default", None))
        first.play(Reply(chunks=(b"old",)))
        second.play(Reply(chunks=(b"new",)))
        assert ((await early).body, (await late).body) == (b"old", b"new")
        await bench.landed()
        assert (await bench.get()).body == b"new"


async def test_a_purge_ends_what_a_clock_that_ran_ahead_stored(opened: Any) -> None:
    """Set back since, it says of these answers that they are still to be asked for."""
    async with opened(Reply(chunks=(b"old",)), Reply(chunks=(b"new",))) as bench:
        bench.clock.advance(1800)
        assert (await bench.get()).body == b"old"
        await bench.landed()
        bench.clock.be_set(-1800)
        assert (await bench.get()).hit
        bench.clock.advance(1)
        await bench.cache.purge(Purge(bench.clock.now(), None, None))
        assert (await bench.store.stats()).entries == 0
        assert (await bench.get()).body == b"new"


async def test_a_purge_by_a_clock_that_runs_ahead_is_told_once(
    opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Until then it ends what comes: an answer may be of the same clock. Why, the log says."""
    async with opened() as bench:
        ahead = Purge(NOW + 3600, "default", None)
        bench.cache.apply_purges((Purge(NOW + 1, "default", None), ahead))
        bench.cache.apply_purges((ahead,))
    assert [line[:22] for line in caplog.messages] == ["a purge is 3600 s ahea"]


async def test_what_a_purge_could_not_delete_is_over_all_the_same(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A purge counts even where the store fails."""
    async with opened(Reply(chunks=(b"old",))) as bench:
        await bench.get()
    async with opened(Reply(chunks=(b"new",)), clock=FakeClock(NOW + 2)) as bench:

        async def fails(*_purges: Purge) -> None:
            raise StoreError("locked")

        monkeypatch.setattr(bench.store, "purge", fails)
        await bench.cache.purge(Purge(NOW + 1, None, None))
        answer = await bench.get()
        assert (answer.hit, answer.body) == (False, b"new")


async def test_what_the_store_could_not_purge_is_tried_again_with_each_sweep(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is gone; of the same reach only the latest is left to try."""
    purge, later = Purge(NOW + 1), Purge(NOW + 2)
    async with opened(Reply()) as bench:
        await bench.get()
        await bench.landed()
        bench.clock.advance(3)
        tried, real = list[tuple[Purge, ...]](), bench.store.purge

        async def refuses(*purges: Purge) -> None:
            tried.append(purges)
            if len(tried) < 4:
                raise StoreError("locked")
            await real(*purges)

        monkeypatch.setattr(bench.store, "purge", refuses)
        for one in (purge, later):
            await bench.cache.purge(one)
        for entries in (1, 0, 0):
            await bench.cache.sweep()
            await bench.cache._removing.done()
            assert (await bench.cache.stats()).entries == entries
        assert tried == [(purge,), (later,), (later,), (later,)]


async def test_nobody_waits_until_the_store_has_let_purged_answers_go(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are over at once, whatever their number; all purges that wait go together, and a stop
    leaves the rest to the next start."""
    begun, go_on, forever = list[tuple[Purge, ...]](), asyncio.Event(), asyncio.Event()
    purges = Purge(NOW + 1, "default", None), Purge(NOW + 1, None, "openai")
    others = Purge(NOW + 1, "a", None), Purge(NOW + 1, "b", None)

    async def removes(*purges: Purge) -> None:
        begun.append(purges)
        await (go_on if len(begun) == 1 else forever).wait()

    async with opened(Reply(chunks=(b"old",)), Reply(chunks=(b"new",))) as bench:
        await bench.get(a_call(body=Body(b"another")))
        await bench.landed()
        monkeypatch.setattr(bench.store, "purge", removes)
        bench.clock.advance(2)
        bench.cache.apply_purges(purges)
        assert (await bench.get(a_call(body=Body(b"another")))).body == b"new"
        assert begun == [purges]
        for other in others:
            bench.cache.apply_purges((other,))
        go_on.set()
        await until(lambda: begun == [purges, others])
        assert (await bench.get(a_call(body=Body(b"another")))).hit


# A store that fails.


class BrokenStore:
    """Fails at everything."""

    async def fail(self, *_arguments: Any) -> Any:
        raise StoreError("the disk is on fire")

    start = get = put = purge = sweep = stats = fail

    def touch(self, key: bytes, now: float) -> None:
        """Nothing to note."""

    async def close(self) -> None:
        """Nothing to close."""


async def test_a_broken_store_fails_no_request(
    opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Contract 6: it shows in `Cache-Status` and logs; the memory goes on working."""
    async with opened(Reply(), store=BrokenStore()) as bench:
        first = await bench.get()
        assert (first.status, first.body) == (200, b"hello")
        assert first.verdict.endswith("stored; ttl=3600; detail=store-error")
        assert (await bench.get()).hit
        await bench.cache.purge(Purge(NOW, None, None))
        await bench.cache.sweep()
        bench.clock.advance(3601)
        await bench.cache.sweep()
        with pytest.raises(StoreError):
            await bench.cache.stats()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "can't open its store" in caplog.text
    assert "the disk is on fire" in caplog.text


async def test_a_large_answer_is_not_kept_by_a_broken_store(opened: Any) -> None:
    """It passes, and the next call goes out again."""
    async with opened(Reply(chunks=(LARGE,)), store=BrokenStore(), memory_bytes=1000) as bench:
        assert (await bench.get()).body == LARGE
        await bench.landed()
        assert not (await bench.get()).hit


@pytest.mark.parametrize("error", [StoreError("full"), ValueError("a fault of ours")])
async def test_an_answer_that_could_not_be_written_is_not_undone_by_the_old_one(
    opened: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The refresh came; what the disk still holds is older."""
    replies = (Reply(chunks=(b"old",)), Reply(chunks=(LARGE,)), Reply(chunks=(b"newest",)))
    async with opened(*replies, memory_bytes=1000) as bench:
        await bench.get()
        await bench.landed()
        put = bench.store.put

        async def fails(*_arguments: Any) -> None:
            raise error

        monkeypatch.setattr(bench.store, "put", fails)
        assert (await bench.get(a_call(invalidate=True))).body == LARGE
        await bench.landed()
        monkeypatch.setattr(bench.store, "put", put)
        again = await bench.get()
        assert (again.hit, again.body) == (False, b"newest")
        await bench.landed()
        assert (await bench.get()).body == b"newest"


async def test_a_store_that_takes_nothing_is_told_until_it_does(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contract 6: a full cache shows in `Cache-Status`, also where it can still be read."""
    async with opened(Reply()) as bench:
        put = bench.store.put

        async def fails(*_arguments: Any) -> None:
            raise StoreError("full")

        async def verdict(number: int) -> str:
            answer = await bench.get(a_call(body=Body(b"%d" % number)))
            await bench.landed()
            return str(answer.verdict)

        monkeypatch.setattr(bench.store, "put", fails)
        await verdict(1)
        assert bench.cache.ails
        assert "detail=store-error" in await verdict(2)
        monkeypatch.setattr(bench.store, "put", put)
        await verdict(3)
        assert "detail" not in await verdict(4)
        assert not bench.cache.ails


async def test_a_fault_in_the_store_fails_no_request(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is."""
    async with opened(Reply()) as bench:

        async def fails(*_arguments: Any) -> None:
            raise ZeroDivisionError

        for name in ("get", "sweep"):
            monkeypatch.setattr(bench.store, name, fails)
        await bench.cache.sweep()
        assert "detail=store-error" in (await bench.get()).verdict


class StuckStore(BrokenStore):
    """Finds nothing, and writes when the test says so."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.written = 0

    async def start(self) -> None:
        """Is open."""

    async def sweep(self, *_arguments: Any) -> None:
        """Nothing is over."""

    async def get(self, *_arguments: Any) -> Miss:
        return Miss.ABSENT

    async def put(self, *_arguments: Any) -> None:
        self.written += 1
        await self.go.wait()


async def test_what_waits_to_be_written_is_bounded(
    opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is slower than the upstream must not fill the memory; the log says so."""
    store = StuckStore()
    async with opened(Reply(chunks=(LARGE,)), store=store, memory_bytes=1_000_000) as bench:
        for number in range(5):
            await bench.get(a_call(body=Body(b"%d" % number)))
        await until(lambda: len(bench.cache._flights.all()) == 2)
        assert store.written == 2
        store.go.set()
    assert "can't write as fast as answers come" in caplog.text


async def test_large_answers_wait_in_files(opened: Any) -> None:
    """A burst of them is kept whole, since it takes no memory."""
    store, count = StuckStore(), 9
    bounds = {"memory_bytes": 1_000_000, "spool_memory_bytes": 1000}
    async with opened(Reply(chunks=(LARGE,)), store=store, **bounds) as bench:
        for number in range(count):
            await bench.get(a_call(body=Body(b"%d" % number)))
        assert len(bench.cache._flights.all()) == store.written == count
        store.go.set()


async def test_closing_writes_down_what_is_whole(opened: Any) -> None:
    """An answer that somebody has got is worth keeping."""
    async with opened(Reply(chunks=(LARGE,) * 3)) as bench:
        await bench.get()
    async with opened() as bench:
        assert (await bench.get()).hit


async def test_a_newer_schema_refuses_to_start(opened: Any, tmp_path: Any) -> None:
    """Contract 9."""
    async with opened():
        pass
    change(tmp_path, "PRAGMA user_version = 99")
    with pytest.raises(SchemaTooNew):
        async with opened():
            raise AssertionError


async def test_a_cache_that_never_started_closes(opened: Any) -> None:
    """Where the rest of the server could not start."""
    async with opened() as bench:
        never = Cache(bench.upstream, a_keyer(), BrokenStore(), bench.clock, CacheSettings())
        await never.aclose()
        with pytest.raises(StoreError):
            await never.stats()


async def test_what_is_over_is_swept_from_time_to_time(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its room is given back without a call."""
    monkeypatch.setattr(cache_module, "SWEEP_SECONDS", 0)
    async with opened(Reply()) as bench:
        await bench.get()
        await bench.landed()
        assert (await bench.cache.stats()).entries == 1
        bench.clock.advance(3600)
        async with asyncio.timeout(10):
            while (await bench.cache.stats()).entries:
                await asyncio.sleep(0)


# Races between look-ups and stores.


class SlowStore:
    """A real store whose look-ups answer when the test says so; it looks before that."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.waiting = 0
        self.go = asyncio.Event()

    async def get(self, *arguments: Any) -> Any:
        found = await self.store.get(*arguments)
        self.waiting += 1
        await self.go.wait()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


async def test_an_answer_stored_during_the_look_up_is_found(opened: Any) -> None:
    """Between a look-up and what follows it, another call may have come back."""
    async with opened(Reply()) as bench:
        slow = SlowStore(bench.store)
        bench.cache._store = slow
        late = bench.begin()
        await until(lambda: slow.waiting == 1)
        await bench.get(a_call(invalidate=True))
        slow.go.set()
        assert (await late).hit
        assert len(bench.upstream.sent) == 1


async def test_a_large_answer_stored_during_the_look_up_is_found(opened: Any) -> None:
    """It is not in memory, so the store is asked again."""
    async with opened(Reply(chunks=(LARGE,)), memory_bytes=1000) as bench:
        slow = SlowStore(bench.store)
        bench.cache._store = slow
        late = bench.begin()
        await until(lambda: slow.waiting == 1)
        await bench.get(a_call(invalidate=True))
        await bench.landed()
        slow.go.set()
        answer = await late
        assert (answer.hit, answer.body, len(bench.upstream.sent)) == (True, LARGE, 1)


@pytest.mark.parametrize("old", [b"old", LARGE])
async def test_a_look_up_does_not_bring_back_what_was_replaced(opened: Any, old: bytes) -> None:
    """What is in memory by then is newer than what the store had."""
    async with opened(Reply(chunks=(old,))) as bench:
        await bench.get()
    async with opened(Reply(chunks=(b"new",)), memory_bytes=100_000) as bench:
        slow = SlowStore(bench.store)
        bench.cache._store = slow
        late = bench.begin()
        await until(lambda: slow.waiting == 1)
        await bench.get(a_call(invalidate=True))
        slow.go.set()
        assert (await late).body == b"new"
        assert (await bench.get()).body == b"new"


async def test_a_caller_who_leaves_a_large_hit_lets_it_go(opened: Any) -> None:
    """Also one who never read of it."""
    async with opened(Reply(chunks=(LARGE,)), memory_bytes=1000) as bench:
        await bench.get()
        await bench.landed()
        async with Reader(bench) as reader:
            assert reader.verdict.startswith("keyrelay; hit")
        async with Reader(bench) as reader:
            assert LARGE.startswith(await reader.piece())
        await bench.cache.purge(Purge(NOW, None, None))
        assert (await bench.cache.stats()).entries == 0
        assert not bench.store._pins._readers


async def test_the_key_is_made_of_forwarded_fields(opened: Any) -> None:
    """The cache sees exactly what the upstream would get."""
    async with opened(Reply(), keyer=a_keyer(ignore_fields=("x-mine",))) as bench:
        await bench.get(a_call(fields=((b"x-mine", b"1"),)))
        assert (await bench.get(a_call(fields=((b"x-mine", b"2"),)))).hit
        elsewhere = a_grant(target=replace(TARGET, path="/other"))
        assert not (await bench.get(grant=elsewhere)).hit


async def test_what_another_process_replaced_is_not_answered_from_memory(opened: Any) -> None:
    """It says so; what can't be heard is not trusted, and nothing is kept in memory meanwhile."""
    async with opened(Reply()) as bench:
        await bench.get()
        assert bench.cache.in_memory.entries == 1
        bench.cache.forget(b"another key")
        assert bench.cache.in_memory.entries == 1
        (key,) = bench.cache._memory._by_key
        bench.cache.forget(key)
        assert bench.cache.in_memory.entries == 0
        await bench.landed()
        assert (await bench.get()).hit
        assert bench.cache.in_memory.entries == 1
        bench.cache.remember(False)
        assert (await bench.get()).hit
        assert bench.cache.in_memory.entries == 0
        bench.cache.remember(True)
        assert (await bench.get()).hit
        assert bench.cache.in_memory.entries == 1
        await bench.cache.check()
