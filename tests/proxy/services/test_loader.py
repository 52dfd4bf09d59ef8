from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from proxy.destinations import parse_destination
from proxy.services import ServiceEntry, ServiceError, Services, Slot, load_services
from proxy.services.schema import RESERVED

FREE = "expected the name of a header field that is free for a service"
PLAIN = "a registered place has no query: leave the ? and what follows away"


@pytest.fixture(scope="module")
def services() -> Services:
    return load_services()


def problems_of(overrides: Mapping[Any, Any]) -> tuple[str, ...]:
    with pytest.raises(ServiceError) as caught:
        load_services(overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_aliases_stand_for_names(services: Services) -> None:
    """`names` holds names and aliases; look-ups by either give the same service."""
    assert services.canonical("gemini") == "google-gemini"
    assert services.get("googlemaps") is services.get("google-maps")
    assert {"openai", "gemini", "maps", "claude"} <= services.names
    assert RESERVED.isdisjoint(services.names)


def test_unknown_names_are_none(services: Services) -> None:
    """Nothing is invented for a name that nobody defined."""
    assert services.get("nobody") is None
    assert services.canonical("nobody") is None
    assert services.base("nobody") is None
    assert services.origin_of("nobody") is None


def test_base_is_the_first_exact_host(services: Services) -> None:
    """The path form goes to the first host that is everybody's; without one there is no base."""
    assert services.base("cohere") == "https://api.cohere.com"
    assert services.base("gemini") == "https://generativelanguage.googleapis.com"
    assert services.base("azure-openai") is None
    assert services.base("ollama") is None


def test_exact_host_comes_before_wildcard() -> None:
    """Contract section 2, rule 9: an exact host before a one-label wildcard."""
    services = load_services(
        {"wide": {"hosts": ["*.example.com"]}, "narrow": {"hosts": ["api.example.com"]}}
    )
    assert [s.name for s in services.candidates("api.example.com")] == ["narrow"]
    assert [s.name for s in services.candidates("other.example.com")] == ["wide"]
    assert services.candidates("a.b.example.com") == ()
    assert services.candidates("example.com") == ()
    assert services.candidates("nobody.test") == ()


def test_one_host_may_be_of_several_services(services: Services) -> None:
    """Who has a key decides between them, so all are candidates."""
    names = {service.name for service in services.candidates("maps.googleapis.com")}
    assert names == {"google-maps", "googleapis"}


def test_credential_headers_hold_every_slot(services: Services) -> None:
    """Second secrets and our own slots too; a field that only names the host is none."""
    assert {
        b"authorization",
        b"proxy-authorization",
        b"x-relay-token",
        b"x-api-key",
        b"xi-api-key",
        b"x-goog-api-key",
        b"api-key",
        b"dd-application-key",
        b"x-algolia-application-id",
        b"x-cmc_pro_api_key",
    } <= services.credential_headers
    assert b"x-rapidapi-host" not in services.credential_headers
    assert all(name == name.lower() for name in services.credential_headers)


def test_origin_of_a_built_in_service() -> None:
    """Only `origin` changes; the path form then goes there, and its place is known."""
    services = load_services({"openai": {"origin": "http://127.0.0.1:9000/v1/"}})
    openai = services.get("openai")
    assert openai is not None
    assert openai.hosts == ("api.openai.com",)
    assert openai.slots == (Slot("header", "Authorization", "Bearer {key}"),)
    assert services.base("openai") == openai.origin == "http://127.0.0.1:9000/v1"
    assert str(services.origin_of("openai")) == "http://127.0.0.1:9000/v1"


def test_origin_covers_whole_segments_below_it() -> None:
    """A destination belongs to an origin by scheme, host, port and path segments."""
    services = load_services(
        {
            "ollama": {"origin": "http://LOCALHOST:11434"},
            "maps": {"origin": "http://localhost:9000/m"},
        }
    )

    def found(url: str) -> list[str]:
        return [service.name for service in services.of_origin(parse_destination(url))]

    assert services.base("ollama") == "http://localhost:11434"
    assert found("http://localhost:11434/api/tags") == ["ollama"]
    assert found("http://localhost:9000/m/geocode") == ["google-maps"]
    assert found("http://localhost:9000/map") == []
    assert found("https://localhost:11434/") == []


@pytest.mark.parametrize(
    "origin",
    ["http://user@host/", "http://x/?a=1", "nowhere", "http://x/..", "http://169.254.169.254"],
)
def test_an_origin_is_a_plain_url(origin: str) -> None:
    """The strict parser of destinations judges it."""
    (problem,) = problems_of({"ollama": {"origin": origin}})
    assert problem.startswith("services.ollama.origin: ")


def test_an_alias_without_hosts_changes_its_service() -> None:
    """`gemini: {origin: ...}` means google-gemini."""
    services = load_services(
        {"gemini": ServiceEntry.model_validate({"origin": "http://127.0.0.1:1"})}
    )
    assert services.canonical("gemini") == "google-gemini"
    assert services.base("google-gemini") == "http://127.0.0.1:1"


def test_a_built_in_alias_gives_way_to_a_service_of_that_name() -> None:
    """So a new alias in a later release can't take over somebody's own service."""
    services = load_services({"maps": {"hosts": ["maps.example.com"]}})
    own, built_in = services.get("maps"), services.get("google-maps")
    assert own is not None and built_in is not None
    assert own.name == "maps" and own.category == "custom"
    assert built_in.aliases == ("googlemaps",)


def test_a_built_in_alias_gives_way_to_an_alias_of_the_configuration() -> None:
    """The same for aliases that the configuration gives."""
    services = load_services({"mine": {"hosts": ["a.example.com"], "aliases": ["hf"]}})
    assert services.canonical("hf") == "mine"
    assert services.canonical("huggingface") == "huggingface"


def test_an_alias_may_not_take_a_name() -> None:
    """Names of services stay their own; two services may not share an alias."""
    assert problems_of({"mine": {"hosts": ["a.example.com"], "aliases": ["openai"]}}) == (
        "services.mine.aliases: expected free names, openai is not",
    )


def test_in_replaces_the_whole_way_to_carry_the_key() -> None:
    """No second field, part or parameter of the built-in way stays behind."""
    services = load_services({"datadog": {"in": "query", "key_name": "k"}})
    datadog = services.get("datadog")
    assert datadog is not None
    assert datadog.slots == (Slot("query", "k", "{key}"),)
    assert datadog.backend_slots == (Slot("header", "Authorization", "Bearer {key}"),)
    assert [part.name for part in datadog.parts] == ["key"]
    assert datadog.probe is not None


def test_hosts_replace_hosts_base_and_what_differs_by_host() -> None:
    """Nothing of the provider's own hosts is left when the admin names others."""
    services = load_services({"googleapis": {"hosts": ["google.example.com"]}})
    google = services.get("google")
    assert google is not None
    assert google.base == "https://google.example.com"
    assert not google.slots_by_host
    assert google not in services.candidates("maps.googleapis.com")


def test_own_service_with_header() -> None:
    """The same members as in the project's own file."""
    services = load_services(
        {"mine": {"hosts": ["api.example.com"], "key_name": "X-Key", "prefix": "T "}}
    )
    mine = services.get("mine")
    assert mine is not None
    assert mine.slots == mine.backend_slots == (Slot("header", "X-Key", "T {key}"),)
    assert b"x-key" in services.credential_headers


def test_every_problem_is_told_at_once() -> None:
    """One line each: path in the file, and what was expected."""
    problems = problems_of(
        {
            "a": {"hosts": ["A.example.com"], "colour": "red"},
            "b": {},
            "server": {"hosts": ["b.example.com"]},
            "-x": {"hosts": ["b.example.com"]},
            "c": None,
            "d": {"hosts": ["d.example.com"], "aliases": "e"},
            7: {"hosts": ["e.example.com"]},
        }
    )
    assert [problem.partition(": ")[0] for problem in problems] == [
        "services.c",
        "services.a.hosts[0]",
        "services.a.colour",
        "services.b.hosts",
        "services.server",
        "services.-x",
        "services.d.aliases",
    ]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"hosts": "a.example.com"}, "a.hosts: expected a list"),
        ({"in": "body"}, "a.in: expected 'header', 'query', 'basic', 'path' or 'none'"),
        ({"colour": "red"}, "a.colour: no member of a service has this name"),
        ({"prefix": 5}, "a.prefix: expected text"),
        ({"defaults": {"Host": "x"}}, f"a.defaults.Host: {FREE}"),
        ({"honour_no_store": "maybe"}, "a.honour_no_store: expected true or false"),
        ({"parts": 5}, "a.parts: expected a mapping"),
        ({"origin": "http://a.example/?x"}, f"a.origin: {PLAIN}"),
    ],
)
def test_a_problem_is_told_in_plain_words(entry: dict[str, object], problem: str) -> None:
    """The words of YAML, not those of a library."""
    assert problems_of({"a": {"hosts": ["a.example.com"], **entry}}) == (f"services.{problem}",)


def test_problems_show_no_values() -> None:
    """A key that was written into the wrong place is not printed."""
    (problem,) = problems_of({"a": {"hosts": ["a.example.com"], "prefix": "s3cret\n"}})
    assert problem == "services.a.prefix: expected printable ASCII characters"
