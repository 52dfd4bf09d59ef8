from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from proxy.services.entries import service_of
from proxy.services.model import Part, Probe, Service, Slot
from proxy.services.schema import ServiceEntry
from proxy.services.slots import every_slot, header_names, query_names

HOST = "api.example.com"


def made(**members: Any) -> Service:
    members.setdefault("hosts", [HOST])
    return service_of("mine", ServiceEntry.model_validate(members))


def test_the_usual_service() -> None:
    """What is left out: `Authorization: Bearer {key}`, one part, https and the first exact host."""
    service = made(hosts=["*.example.com", HOST])
    assert service.slots == (Slot("header", "Authorization", "Bearer {key}"),)
    assert service.backend_slots == service.slots
    assert service.parts == (Part("key", "API key"),)
    assert service.base == f"https://{HOST}"
    assert not service.keyless and not service.needs_hosts


@pytest.mark.parametrize(
    ("members", "slot"),
    [
        ({"prefix": ""}, Slot("header", "Authorization", "{key}")),
        ({"prefix": "Key "}, Slot("header", "Authorization", "Key {key}")),
        ({"key_name": "X-Api-Key"}, Slot("header", "X-Api-Key", "{key}")),
        ({"in": "query", "key_name": "k"}, Slot("query", "k", "{key}")),
        ({"in": "basic"}, Slot("basic", "Authorization", "{username}:{key}")),
        ({"in": "basic", "username": "api"}, Slot("basic", "Authorization", "api:{key}")),
        (
            {"in": "basic", "username": "{key}", "password": ""},
            Slot("basic", "Authorization", "{key}:"),
        ),
        (
            {"in": "path", "key_name": "bot{key}", "after": ["file"]},
            Slot("path", "bot", "bot{key}", ("file",)),
        ),
    ],
)
def test_each_way_to_carry_a_key(members: dict[str, Any], slot: Slot) -> None:
    """Header with and without prefix, query, basic, path."""
    assert made(**members).slots == (slot,)


def test_a_user_name_is_no_secret_unless_it_says_so() -> None:
    """The usual parts are taken from the templates."""
    assert made(**{"in": "basic"}).parts == (
        Part("username", "Username", secret=False),
        Part("key", "API key"),
    )


def test_a_keyless_service_has_no_slots() -> None:
    """`in: none`; such a service may do without hosts, until an origin is set."""
    service = made(**{"in": "none", "hosts": []})
    assert service.keyless
    assert not (service.slots or service.backend_slots or service.parts)
    assert service.base is None


def test_a_backend_receives_header_fields_as_the_provider_does() -> None:
    """All fields that hold a part of the key; none that says something of the provider's host."""
    service = made(
        key_name="X-Key", extra={"X-Id": "{id}", "X-Host": "{host}"}, parts={"id": "ID", "key": "K"}
    )
    assert service.backend_slots == (
        Slot("header", "X-Key", "{key}"),
        Slot("header", "X-Id", "{id}"),
    )


@pytest.mark.parametrize(
    "members", [{"in": "query", "key_name": "k"}, {"in": "path", "key_name": "{key}"}]
)
def test_a_backend_receives_other_keys_as_bearer(members: dict[str, Any]) -> None:
    """Contract section 5: always a header, `Authorization: Bearer` for query and path."""
    assert made(**members).backend_slots == (Slot("header", "Authorization", "Bearer {key}"),)


def test_a_backend_receives_two_parameters_as_user_and_password() -> None:
    """Bearer has no room for two."""
    service = made(**{"in": "query", "key_name": "k", "extra": {"s": "{s}"}})
    assert service.slots[1] == Slot("query", "s", "{s}")
    assert service.backend_slots == (Slot("basic", "Authorization", "{key}:{s}"),)
    assert service.parameters == ("k", "s")


def test_backend_header_names_the_field() -> None:
    """It stands in for the first slot only."""
    service = made(
        key_name="X-Key",
        extra={"X-Second": "{second}"},
        backend_header="X-Given",
        backend_prefix="Key ",
    )
    assert service.backend_slots == (
        Slot("header", "X-Given", "Key {key}"),
        Slot("header", "X-Second", "{second}"),
    )


def test_a_host_may_differ() -> None:
    """`by_host` has slots of its own; their parameters count as the service's."""
    service = made(
        hosts=[HOST, "maps.example.com"],
        key_name="X-Key",
        by_host={"maps.example.com": {"in": "query", "key_name": "key"}},
        also_in_query=["k", "key"],
    )
    assert service.slots_for(HOST) == (Slot("header", "X-Key", "{key}"),)
    assert service.slots_for("maps.example.com") == (Slot("query", "key", "{key}"),)
    assert service.parameters == ("k", "key")
    assert query_names(every_slot(service)) == {"k", "key"}
    assert header_names(every_slot(service)) == {b"x-key"}


def test_needs_hosts_where_every_host_is_a_tenants() -> None:
    """A key is of no use before its host is fixed."""
    service = made(hosts=["*.example.com"])
    assert service.needs_hosts
    assert service.base is None
    assert service.has_host("a.example.com")
    assert not service.has_host("a.b.example.com")
    assert not service.has_host("example.com")


def test_the_rest_is_carried_over() -> None:
    """Names of default fields in lower case, as fields are everywhere inside."""
    service = made(
        category="ai",
        parts={"key": {"title": "Token"}},
        defaults={"X-Version": "1"},
        download_hosts=["files.example.com"],
        aliases=["m"],
        probe="GET /v1/me?x=1",
        honour_no_store=True,
        note="a note",
        base=f"https://{HOST}/v1/",
    )
    assert service == Service(
        name="mine",
        category="ai",
        hosts=(HOST,),
        slots=service.slots,
        backend_slots=service.slots,
        base=f"https://{HOST}/v1",
        parts=(Part("key", "Token"),),
        defaults=((b"x-version", b"1"),),
        download_hosts=("files.example.com",),
        aliases=("m",),
        probe=Probe("GET", "/v1/me?x=1"),
        honour_no_store=True,
        note="a note",
    )


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"hosts": []}, "hosts: "),
        ({"base": "http://api.example.com"}, "base: "),
        ({"base": "https://evil.example.com"}, "base: "),
        ({"base": "https://api.example.com.evil.test"}, "base: "),
        ({"by_host": {"b.example.com": {}}}, "by_host.b.example.com: "),
        ({"parts": {"id": "ID"}}, "parts: expected `key`"),
        ({"parts": {"key": "K", "more": "M"}}, "parts.more: "),
        ({"parts": {"key": {"title": "K", "secret": False}}}, "parts: expected a secret part"),
        ({"in": "basic", "username": "a", "password": "b"}, "parts: expected a secret part"),
    ],
)
def test_what_does_not_fit_together(members: dict[str, Any], problem: str) -> None:
    """Checked when the file is read, not when a call comes."""
    with pytest.raises(ValueError, match="^" + re.escape(problem)):
        made(**members)


@pytest.mark.parametrize(
    "members",
    [
        {"hosts": ["EXAMPLE.com"]},
        {"hosts": ["com"]},
        {"hosts": ["*.com"]},
        {"hosts": ["a.*.com"]},
        {"hosts": ["*.*.com"]},
        {"hosts": ["127.0.0.1"]},
        {"hosts": ["a.example.com:443"]},
        {"hosts": ["a.example.com."]},
        {"hosts": ["a." * 130 + "com"]},
        {"hosts": "a.example.com"},
        {"in": "cookie"},
        {"in": "query"},
        {"in": "path"},
        {"in": "path", "key_name": "bot"},
        {"in": "path", "key_name": "a/{key}"},
        {"key_name": "Content-Length"},
        {"key_name": "Proxy-Authorization"},
        {"key_name": "X-Relay-Token"},
        {"key_name": "a b"},
        {"extra": {"Host": "{key}"}},
        {"prefix": "a\r\n"},
        {"defaults": {"x-version": 3}},
        {"defaults": {"x:y": "3"}},
        {"backend_header": ""},
        {"download_hosts": ["*.example.com"]},
        {"aliases": ["proxy"]},
        {"aliases": ["A"]},
        {"probe": "DELETE /v1"},
        {"probe": "GET v1"},
        {"origin": "localhost:1"},
        {"parts": {"host": "Host"}},
        {"parts": {"A": "A"}},
        {"honour_no_store": "perhaps"},
        {"unknown": 1},
    ],
)
def test_what_the_schema_refuses(members: dict[str, Any]) -> None:
    """Nothing unknown, nothing that another parser could read otherwise."""
    with pytest.raises(ValidationError):
        made(**members)


def test_a_later_version_may_carry_the_key_otherwise() -> None:
    """`by_version` counts from the caller's own version on; a default is not the caller's."""
    service = made(
        key_name="x-api-key",
        defaults={"Api-Version": "2023-06-01"},
        by_version={"2025-01-01": {"key_name": "x-key"}, "2026-10-21": {"prefix": "Key "}},
    )

    def slot(*fields: tuple[bytes, bytes]) -> Slot:
        return service.slots_for(HOST, fields)[0]

    usual = Slot("header", "x-api-key", "{key}")
    assert slot() == slot((b"api-version", b"2024-12-31")) == usual
    assert slot((b"api-version", b"2026-10-20")) == Slot("header", "x-key", "{key}")
    assert slot((b"api-version", b"2027-01-01")) == Slot("header", "Authorization", "Key {key}")
    assert service.backend_slots == (usual,)
    assert header_names(every_slot(service)) == {b"x-api-key", b"x-key", b"authorization"}


def test_a_version_needs_its_field() -> None:
    """The first of `defaults` is the field of the version."""
    with pytest.raises(ValueError, match="by_version: expected the version's field"):
        made(by_version={"2026-10-21": {"prefix": "Key "}})
