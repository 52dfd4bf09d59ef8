"""Small answers in memory."""

from __future__ import annotations

from typing import Any

from proxy.cache.entry import OVERHEAD, Found, Holding, Miss
from proxy.cache.memory import SHARE, Memory
from proxy.cache.purges import REMEMBERED, Purges, Unwritten
from tests.proxy.cache.conftest import NOW
from tests.proxy.cache.stores import an_entry, sending
from vault import Purge


def kept(memory: Memory, key: bytes = b"k", value: bytes = b"", now: float = NOW) -> Any:
    found = memory.get(key, sending(value), now)
    return found.body if isinstance(found, Found) else found


def a_memory(entries: int = 8) -> Memory:
    return Memory(entries * (OVERHEAD + 4))


def put(memory: Memory, key: bytes = b"k", body: bytes = b"body", **changes: Any) -> None:
    entry = an_entry(key, **changes)
    memory.put(entry, sending(entry.variant), body)


def test_an_answer_is_found_until_its_time() -> None:
    """Contract 6: at its timestamp an entry is over."""
    memory = a_memory()
    assert kept(memory) is Miss.ABSENT
    put(memory)
    assert kept(memory, now=NOW + 9.9) == b"body"
    assert kept(memory, now=NOW + 10) is Miss.OVER


def test_an_answer_is_found_after_the_clock_went_back() -> None:
    """Its time is a point in time, whatever the clock said when it was made."""
    memory = a_memory()
    put(memory)
    assert kept(memory, now=NOW - 100) == b"body"


def test_variants_stand_side_by_side() -> None:
    """RFC 9111 section 4.1."""
    memory = a_memory()
    put(memory, vary=b"user-agent", variant=b"1", body=b"one!")
    put(memory, vary=b"user-agent", variant=b"2", body=b"two!")
    assert kept(memory, value=b"1") == b"one!"
    assert kept(memory, value=b"2") == b"two!"
    assert kept(memory, value=b"3") is Miss.VARIES


def test_an_expired_variant_tells_more_than_another_one() -> None:
    """The reason for a miss is the more telling one, in any order."""
    memory = a_memory()
    put(memory, vary=b"user-agent", variant=b"1", expires_at=NOW)
    put(memory, vary=b"user-agent", variant=b"2")
    put(memory, vary=b"user-agent", variant=b"3")
    assert kept(memory, value=b"1") is Miss.OVER
    put(memory, vary=b"user-agent", variant=b"1", expires_at=NOW)
    assert kept(memory, value=b"1") is Miss.OVER


def test_a_new_answer_replaces_what_would_have_answered() -> None:
    """Also one that varied by other names."""
    memory = a_memory()
    put(memory, body=b"old!")
    put(memory, vary=b"user-agent", variant=b"1", body=b"new!")
    assert kept(memory, value=b"1") == b"new!"
    assert kept(memory, value=b"2") is Miss.VARIES
    memory.forget(b"k", sending(b"1"))
    assert kept(memory, value=b"1") is Miss.ABSENT


def test_the_longest_unused_goes_first() -> None:
    """LRU by octets."""
    memory = a_memory(2)
    put(memory, b"a")
    put(memory, b"b")
    assert kept(memory, b"a") == b"body"
    put(memory, b"c")
    assert kept(memory, b"b") is Miss.ABSENT
    assert kept(memory, b"a") == kept(memory, b"c") == b"body"


def test_the_largest_tenant_makes_room() -> None:
    """Nobody pushes the others out."""
    memory = a_memory(4)
    put(memory, b"mine", tenant="small")
    for number in range(9):
        put(memory, b"%d" % number, tenant="large")
    assert kept(memory, b"mine") == b"body"
    assert [n for n in range(9) if kept(memory, b"%d" % n) == b"body"] == [6, 7, 8]


def test_only_small_answers_are_taken() -> None:
    """One answer can't push everything out."""
    memory = Memory(SHARE * (OVERHEAD + 10))
    assert memory.takes(10)
    assert not memory.takes(11)


def test_what_is_over_is_swept() -> None:
    """Its room is given back."""
    memory = a_memory()
    put(memory, b"a")
    put(memory, b"b", expires_at=NOW + 99)
    memory.sweep(NOW + 10)
    assert kept(memory, b"a") is Miss.ABSENT
    assert kept(memory, b"b") == b"body"


def test_a_purge_drops_what_it_covers() -> None:
    """By time, tenant and service."""
    memory = a_memory()
    for key, changes in {
        b"a": {},
        b"b": {"tenant": "u"},
        b"c": {"service": "x"},
        b"d": {"requested_at": NOW + 1},
    }.items():
        put(memory, key, **changes)
    memory.purge(Purge(NOW, "t", "s"), NOW + 1)
    assert [kept(memory, k) for k in (b"a", b"b")] == [Miss.ABSENT, b"body"]
    memory.purge(Purge(NOW, None, None), NOW + 1)
    assert kept(memory, b"c") is Miss.ABSENT
    assert kept(memory, b"d") == b"body"


def test_purges_are_known_by_reach() -> None:
    """The newest of each reach counts; an older one says nothing new."""
    purges = Purges()
    assert not purges.cover("t", "s", NOW)
    assert purges.add(Purge(NOW, "t", None))
    assert not purges.add(Purge(NOW, "t", None))
    assert not purges.add(Purge(NOW - 1, "t", None))
    assert purges.cover("t", "s", NOW)
    assert not purges.cover("t", "s", NOW + 0.1)
    assert not purges.cover("u", "s", NOW)
    assert purges.add(Purge(NOW, None, "s"))
    assert purges.cover("u", "s", NOW)


def test_what_could_not_be_written_outdates_what_was() -> None:
    """Up to the time of its request, for as many keys as are remembered."""
    unwritten = Unwritten()
    unwritten.add(an_entry(requested_at=NOW))
    assert unwritten.outdate(an_entry(requested_at=NOW))
    assert not unwritten.outdate(an_entry(requested_at=NOW + 1))
    assert not unwritten.outdate(an_entry(b"other"))
    unwritten.forget(an_entry())
    assert not unwritten.outdate(an_entry())
    for number in range(REMEMBERED + 1):
        unwritten.add(an_entry(b"%d" % number))
    assert not unwritten.outdate(an_entry(b"0"))
    assert unwritten.outdate(an_entry(b"1"))


def test_fields_count_as_the_body_does() -> None:
    """A small answer is mostly header, and the bound is one of memory."""
    memory = a_memory(8)
    fields = tuple((b"x-%d" % number, b"y" * 50) for number in range(100))
    put(memory, b"k", fields=fields)
    assert memory.holding.entries == 0
    put(memory, b"k")
    put(memory, b"l", fields=fields[:1])
    assert memory.holding == Holding(2, 2 * (OVERHEAD + 4))
    assert an_entry(fields=fields).cost > 100 * (3 + 50)


def test_what_another_process_replaced_is_dropped() -> None:
    """Under one key, or all of it; a closed memory takes nothing."""
    memory = a_memory()
    put(memory)
    put(memory, b"other")
    memory.clear(b"k")
    assert (kept(memory), kept(memory, b"other")) == (Miss.ABSENT, b"body")
    memory.clear()
    assert memory.holding == Holding()
    assert memory.takes(4)
    memory.closed = True
    assert not memory.takes(4)
