"""The key: everything that may change the answer, and no noise."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cache.key import NOISE, Keyer, Noise, folded_codings, own_credential
from proxy.call import Call
from proxy.destinations import Target
from proxy.errors import BadCall
from proxy.grant import Grant
from proxy.messages import Fields
from proxy.services.model import Slot
from tests.proxy.cache.conftest import HOUR, SERVICE, TARGET, Body, a_call, a_grant, a_keyer
from vault import KeyRef
from vault.sealing import DataKey, KeyedHasher


def key(
    call: Call | None = None,
    grant: Grant | None = None,
    keyer: Keyer | None = None,
    body: Any = (b"{}",),
) -> bytes:
    keying = (keyer or a_keyer()).begin(call or a_call(), grant or a_grant())
    for chunk in body:
        keying.absorb(chunk)
    return keying.digest()


def with_fields(*fields: tuple[bytes, bytes]) -> Call:
    return a_call(fields=fields)


def service(name: str) -> Any:
    return replace(SERVICE, name=name)


def alias(name: str) -> Grant:
    return a_grant(key=KeyRef("default", "openai", name, 1))


DIFFERENT: dict[str, bytes] = {
    "plain": key(),
    "tenant": key(grant=a_grant("other")),
    "service": key(grant=a_grant(service=service("groq"))),
    "no service": key(grant=a_grant(service=None)),
    "alias": key(grant=alias("second")),
    "no key": key(grant=a_grant(key=None)),
    "method": key(a_call(method="GET")),
    "scheme": key(grant=a_grant(target=replace(TARGET, scheme="http", port=443))),
    "host": key(grant=a_grant(target=replace(TARGET, host="api.openai.co"))),
    "port": key(grant=a_grant(target=replace(TARGET, port=8443))),
    "path": key(grant=a_grant(target=replace(TARGET, path="/v1/Chat"))),
    "query": key(grant=a_grant(target=replace(TARGET, query="a=1&b=2"))),
    "query order": key(grant=a_grant(target=replace(TARGET, query="b=2&a=1"))),
    "empty query": key(grant=a_grant(target=replace(TARGET, query=""))),
    "body": key(body=(b"{ }",)),
    "no body": key(body=()),
    "a field": key(with_fields((b"accept", b"a"))),
    "its value": key(with_fields((b"accept", b"b"))),
    "two of it": key(with_fields((b"accept", b"a"), (b"accept", b"b"))),
    "in other order": key(with_fields((b"accept", b"b"), (b"accept", b"a"))),
    "as a list": key(with_fields((b"accept", b"a, b"))),
    "beta field": key(with_fields((b"openai-beta", b"assistants=v2"))),
    "range": key(with_fields((b"range", b"bytes=0-1"))),
    "conditional": key(with_fields((b"if-none-match", b'"a"'))),
    "field into body": key(with_fields((b"accept", b"")), body=(b"a{}",)),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_may_change_the_answer_changes_the_key(name: str) -> None:
    """Contract 6: tenant, service, alias, method, target, fields, body."""
    same = [other for other, found in DIFFERENT.items() if found == DIFFERENT[name]]
    assert same == [name]


def test_cache_and_invalidate_are_not_in_the_key() -> None:
    """Contract 6: `cache` and `invalidate` are not in it."""
    assert key(a_call(HOUR, invalidate=True)) == key(a_call(HOUR + 9))


def test_the_default_port_is_not_in_the_key() -> None:
    """Contract 6: default port gone."""
    assert TARGET.url == "https://api.openai.com/v1/chat"
    named = Target("https", "api.openai.com", 443, "/v1/chat")
    assert key(grant=a_grant(target=named)) == key()


@pytest.mark.parametrize("name", [n.replace("*", "anything") for n in NOISE])
def test_noise_does_not_count(name: str) -> None:
    """Contract 6: per-call noise."""
    assert key(with_fields((name.encode(), b"1"))) == key()


@pytest.mark.parametrize("name", [b"content-length", b"transfer-encoding"])
def test_framing_does_not_count(name: bytes) -> None:
    """The octets of the body count, not how they are framed."""
    assert key(with_fields((name, b"1"))) == key()


@pytest.mark.parametrize("name", [b"x-b", b"xx-b3-a", b"user-agents", b"cookie", b"date2"])
def test_what_only_looks_like_noise_counts(name: bytes) -> None:
    """The list is literal."""
    assert key(with_fields((name, b"1"))) != key()


def test_ignore_fields_adds_to_the_noise() -> None:
    """Contract 6: `cache.ignore_fields`, whole names and prefixes."""
    keyer = a_keyer(ignore_fields=("X-Trace", "x-my-*"))
    noisy = with_fields((b"x-trace", b"1"), (b"x-my-id", b"2"))
    assert key(noisy, keyer=keyer) == key(keyer=keyer)
    assert key(noisy) != key()


def test_who_ignores_other_fields_has_other_keys() -> None:
    """What one stored without looking at a field is no answer of another that does: of an instance
    with another file, or of the same one before its file was changed. The order doesn't count."""
    ignoring = [a_keyer(ignore_fields=names) for names in ((), ("x-b",), ("x-b", "x-a"))]
    assert len({key(keyer=keyer) for keyer in ignoring}) == 3
    assert key(keyer=a_keyer(ignore_fields=("X-A", "x-b"))) == key(keyer=ignoring[2])


def test_no_noise_holds_nothing() -> None:
    """An empty list has no prefix that everything starts with."""
    assert not Noise(()).holds(b"a")


def test_the_order_of_different_fields_does_not_count() -> None:
    """RFC 9110 section 5.3: only the order within one name has a meaning."""
    one = with_fields((b"accept", b"a"), (b"b", b"1"), (b"accept", b"c"))
    other = with_fields((b"b", b"1"), (b"accept", b"a"), (b"accept", b"c"))
    assert key(one) == key(other)


def test_the_key_is_made_of_what_the_upstream_would_get() -> None:
    """Contract 6: the *forwarded* request fields."""
    keyer = Keyer(a_keyer().hasher, lambda call, grant: ((b"version", b"1"),))
    assert key(with_fields((b"x-stripped", b"1")), keyer=keyer) == key(keyer=keyer) != key()


def test_another_data_key_makes_other_keys() -> None:
    """Contract 6: keyed with HMAC, so that a stolen file can't be guessed at."""
    other = Keyer(KeyedHasher(DataKey.random("cache")), lambda call, grant: call.fields)
    assert key(keyer=other) != key()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"gzip, deflate, br, zstd", b"br, deflate, gzip, zstd"),
        (b"GZIP;q=0.5,  br;q=1.0, foo", b"br, gzip"),
        (b"x-gzip", b"gzip"),
        (b"gzip;q=0, br;q=0.000", b""),
        (b"gzip;q=0.001", b"gzip"),
        (b"identity", b"identity"),
        (b"identity;q=0, gzip", b"gzip, identity;q=0"),
        (b"*;q=0, gzip", b"*;q=0, gzip"),
        (b"", b""),
    ],
)
def test_accept_encoding_is_folded(sent: bytes, kept: bytes) -> None:
    """Contract 6: folded to the codings that matter."""
    assert folded_codings(sent) == kept


def test_folded_codings_make_one_key() -> None:
    """Two fields or one, in any order; but not what asks for something else."""
    one = with_fields((b"accept-encoding", b"gzip"), (b"accept-encoding", b"br"))
    other = with_fields((b"accept-encoding", b"br;q=0.9, gzip;q=0.1"))
    assert key(one) == key(other) != key()
    assert key(with_fields((b"accept-encoding", b"gzip"))) != key(one)


def form(boundary: bytes, text: bytes = b"A") -> tuple[Call, tuple[bytes, ...]]:
    content_type = b"multipart/form-data; boundary=" + boundary
    lines = (b"--" + boundary, b"", text, b"--" + boundary + b"--", b"")
    return with_fields((b"content-type", content_type)), (b"\r\n".join(lines),)


def form_key(boundary: bytes, text: bytes = b"A") -> bytes:
    call, body = form(boundary, text)
    return key(call, body=body)


def test_multipart_boundaries_are_replaced_in_field_and_body() -> None:
    """Contract 6: they change on every call."""
    assert form_key(b"one") == form_key(b"three") != form_key(b"one", b"B")


def test_a_compressed_form_keeps_its_boundary() -> None:
    """Behind a content coding the octets can't be read."""
    call, body = form(b"one")
    packed = call._replace(fields=(*call.fields, (b"content-encoding", b"gzip")))
    plain = call._replace(fields=(*call.fields, (b"content-encoding", b"Identity")))
    assert a_keyer().parts(packed, a_grant())[-1] == "body"
    assert a_keyer().parts(plain, a_grant())[-1] == "body without its multipart boundary"
    assert key(packed, body=body) != key(call, body=body)


def test_two_content_types_are_not_read() -> None:
    """What is unclear goes into the key as it came."""
    call, _ = form(b"one")
    assert a_keyer().parts(call._replace(fields=call.fields * 2), a_grant())[-1] == "body"


def test_json_white_space_counts_unless_ignored() -> None:
    """Contract 6: JSON stays octets; `cache.json_whitespace: ignore`."""
    call = with_fields((b"content-type", b"application/json"))
    loose, dense = (b'{ "a": 1 }',), (b'{"a":1}',)
    assert key(call, body=loose) != key(call, body=dense)
    keyer = a_keyer(fold_json=True)
    assert key(call, keyer=keyer, body=loose) == key(call, keyer=keyer, body=dense)
    text = with_fields((b"content-type", b"text/plain"))
    assert key(text, keyer=keyer, body=loose) != key(text, keyer=keyer, body=dense)


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_the_key_does_not_depend_on_chunks(octets: bytes, cuts: list[int]) -> None:
    """The octets count, not how they came."""
    places = [0, *sorted(cuts), 60]
    chunks = [octets[a:b] for a, b in itertools.pairwise(places)]
    assert key(body=chunks) == key(body=(octets,))


FIELD = st.tuples(st.sampled_from([b"a", b"b", b"aa"]), st.binary(max_size=3))


@given(
    st.lists(FIELD, max_size=4),
    st.lists(FIELD, max_size=4),
    st.binary(max_size=4),
    st.binary(max_size=4),
)
def test_different_calls_have_different_keys(
    one: list[Any], other: list[Any], body: bytes, second: bytes
) -> None:
    """No two calls run together, wherever one part ends and the next begins."""
    alike = sorted(one, key=lambda f: f[0]) == sorted(other, key=lambda f: f[0]) and body == second
    found = key(with_fields(*one), body=(body,)) == key(with_fields(*other), body=(second,))
    assert found == alike


OWN: Fields = ((b"authorization", b"Bearer mine"),)


def own_grant(*slots: Slot) -> Grant:
    return a_grant(service=replace(SERVICE, slots=slots), key=None, own_credential=True)


def test_the_callers_own_credential_counts() -> None:
    """Contract 3: its hash is part of the cache key, also where it is not forwarded as a field."""
    keyer = Keyer(a_keyer().hasher, lambda call, grant: ())
    mine, yours = a_call(fields=OWN), a_call(fields=((b"authorization", b"Bearer yours"),))
    own = own_grant(*SERVICE.slots)
    assert key(mine, own, keyer) != key(yours, own, keyer)
    assert key(mine, a_grant(), keyer) == key(yours, a_grant(), keyer)
    assert own_credential(mine, a_grant(service=None, own_credential=True)) == []


def test_the_callers_own_parameter_counts() -> None:
    """Contract 3: in the slot of the service, here a query parameter that the target has lost."""
    own = own_grant(Slot("query", "key", "{key}"), Slot("header", "X-Key", "{key}"))
    mine = a_call(url="https://maps/x?a=1&key=mine#f", fields=((b"x-key", b"k"),))
    assert own_credential(mine, own) == [(b"x-key", b"k"), (b"key", b"mine")]
    assert key(mine, own) != key(a_call(url="https://maps/x?a=1&key=yours"), own)


def test_a_call_that_can_not_be_read_has_no_parameters() -> None:
    """Its directions hold the refusal."""
    broken = a_call()._replace(directions=BadCall("no"))
    assert own_credential(broken, own_grant(Slot("query", "key", "{key}"))) == []


@pytest.mark.parametrize(
    ("vary", "names"),
    [
        ((b"Accept, User-Agent",), b"user-agent"),
        ((b"x-request-id", b"User-Agent ,"), b"user-agent,x-request-id"),
        ((b"accept-encoding",), b""),
        ((b"user-agent, *",), None),
        ((), b""),
    ],
)
def test_vary_names_what_the_key_does_not_hold(
    vary: tuple[bytes, ...], names: bytes | None
) -> None:
    """Contract 6: what a stored `Vary` names; noise counts then."""
    assert a_keyer().vary(tuple((b"vary", text) for text in vary)) == names


def test_a_variant_is_what_the_call_sends_in_the_named_fields() -> None:
    """RFC 9111 section 4.1."""

    def select(names: bytes, *fields: tuple[bytes, bytes]) -> bytes:
        return a_keyer().begin(with_fields(*fields), a_grant()).select(names)

    agent = (b"user-agent", b"a")
    assert select(b"", agent) == b""
    assert select(b"user-agent", agent) == select(b"user-agent", agent, (b"date", b"1"))
    different = [
        select(b"user-agent"),
        select(b"user-agent", agent),
        select(b"user-agent", agent, agent),
        select(b"user-agent", (b"user-agent", b"")),
        select(b"date,user-agent", agent),
    ]
    assert len(set(different)) == len(different)


def test_parts_are_names_and_never_values() -> None:
    """Contract 8: `explain` shows what the key is made of, never a value."""
    call = a_call(fields=((b"user-agent", b"x"), (b"accept", b"secret")), body=Body(b"{}"))
    assert a_keyer().parts(call, a_grant()) == [
        "tenant",
        "service",
        "key alias",
        "method",
        "target",
        "field accept",
        "body",
    ]
    own = a_keyer().parts(a_call(fields=OWN), own_grant(*SERVICE.slots))
    assert "own credential authorization" in own
    json_call = a_call(fields=((b"content-type", b"application/json"),))
    assert (
        a_keyer(fold_json=True).parts(json_call, a_grant())[-1] == "body without JSON white space"
    )


def test_an_equal_header_under_the_same_grant_is_worked_out_once() -> None:
    """It makes the same key as before; another grant or the caller's own key never mixes in."""
    keyer, grant, asked = a_keyer(), a_grant(), a_call()._replace(head=b"h")
    first = key(asked, grant, keyer)
    assert key(asked, grant, keyer) == first == key(a_call(), grant, keyer)
    assert key(asked, a_grant("other"), keyer) == DIFFERENT["tenant"]
    own = a_grant(key=None, own_credential=True)
    one = with_fields((b"authorization", b"Bearer one"))._replace(head=b"o")
    two = with_fields((b"authorization", b"Bearer two"))._replace(head=b"o")
    assert key(one, own, keyer) != key(two, own, keyer)
