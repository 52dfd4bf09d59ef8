"""Where a key may go, and who may use it (contract sections 3 and 4)."""

from __future__ import annotations

import pytest

from proxy.authorization import Authorizer
from proxy.call import Call, Directions
from proxy.destinations import parse_destination, parse_registration
from proxy.errors import (
    AmbiguousService,
    BadRequest,
    DestinationRefused,
    Forbidden,
    KeyMissing,
    RelayError,
    UnknownService,
)
from proxy.grant import Client, Grant, Place, Route
from proxy.messages import Fields
from proxy.reach import Reach
from proxy.services import load_services
from tests.support.outbound import Body
from vault import Backend, Holdings, KeyRef, Narrowing

SERVICES = load_services(
    {
        "ollama": {"origin": "http://127.0.0.1:11434"},
        "vllm": {"category": "ai", "hosts": [], "origin": "http://10.0.0.7:8000/v1", "in": "none"},
        "files": {
            "category": "test",
            "hosts": ["api.files.example"],
            "in": "header",
            "key_name": "Authorization",
            "prefix": "Bearer ",
            "download_hosts": ["cdn.files.example"],
        },
    }
)
OPENAI = KeyRef("default", "openai", "default", 1, default=True)
SECOND = KeyRef("default", "openai", "second", 1)
MAPS = KeyRef("default", "google-maps", "default", 1, default=True)
ZENDESK = KeyRef("default", "zendesk", "default", 1, default=True, hosts=("acme.zendesk.com",))
FILES = KeyRef("default", "files", "default", 1, default=True)
BACKEND = Backend("default", "openai", parse_registration("http://10.1.2.3:9000/llm"))


def holdings(*keys: KeyRef, backends: tuple[Backend, ...] = ()) -> Holdings:
    by_service: dict[str, tuple[KeyRef, ...]] = {}
    for key in keys:
        by_service[key.service] = (*by_service.get(key.service, ()), key)
    return Holdings("default", by_service, backends)


EVERYTHING = holdings(OPENAI, SECOND, MAPS, ZENDESK, FILES, backends=(BACKEND,))


def authorize(
    url: str, service: str | None = None, client: Client | None = None, fields: Fields = ()
) -> Grant:
    client = client or Client("caller", EVERYTHING)
    asked = Directions(url, service)
    call = Call("GET", asked, fields, Body(), "id")
    authorizer = Authorizer(SERVICES, own=frozenset({("127.0.0.1", 8000), ("relay.example", 443)}))
    return authorizer.authorize(client, call, Route(asked, parse_destination(url)))


def test_the_providers_own_host_gets_the_default_key_and_only_public_addresses() -> None:
    """https on port 443 of the service's own hosts."""
    grant = authorize("https://api.openai.com/v1/models", "openai")
    assert (grant.place, grant.key, grant.reach) == (Place.PROVIDER, OPENAI, Reach.PUBLIC)


def test_the_service_is_found_from_its_host() -> None:
    """The candidates are the services whose host it is and for which the tenant has a key."""
    grant = authorize("https://maps.googleapis.com/maps/api/geocode/json?key=x&address=a")
    assert grant.service is not None
    assert grant.service.name == "google-maps"
    assert grant.target.query == "address=a"


def test_several_candidates_are_named() -> None:
    """Two services with a key on one host: the caller must choose."""
    second = KeyRef("default", "googleapis", "default", 1)
    client = Client("caller", holdings(MAPS, second))
    with pytest.raises(AmbiguousService, match="google-maps, googleapis"):
        authorize("https://maps.googleapis.com/x", client=client)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.openai.com/v1/models",
        "https://api.openai.com:8443/v1/models",
        "https://evil.example/v1/models",
        "https://api.openai.com.evil.example/",
        "http://10.1.2.3:9000/",
        "http://10.1.2.3:9000/llmx",
        "http://10.1.2.3:9001/llm/x",
        "https://10.1.2.3:9000/llm/x",
        "http://10.1.2.3:9000/LLM/x",
        "http://10.1.2.3:9000/llm/%2Fadmin",
        "http://10.1.2.3:9000/llm//admin",
        "http://10.1.2.3:9000/llm/a;b",
        "http://10.1.2.3:9000/llm/%255c",
    ],
)
def test_a_key_goes_nowhere_else(url: str) -> None:
    """Every other host, port, scheme or prefix is refused."""
    with pytest.raises(DestinationRefused):
        authorize(url, "openai")


def test_a_backend_gets_the_key_below_its_prefix() -> None:
    """An exact registration may be private."""
    grant = authorize("http://10.1.2.3:9000/llm/ask", "openai")
    assert (grant.place, grant.key, grant.reach) == (Place.BACKEND, OPENAI, Reach.REGISTERED)


def test_a_backend_bound_to_one_service_names_it() -> None:
    """The service may be left out."""
    grant = authorize("http://10.1.2.3:9000/llm")
    assert grant.service is not None
    assert grant.service.name == "openai"


def test_a_backend_bound_to_several_services_gets_no_key_unless_one_is_named() -> None:
    """Forwarded without a key only to a registered backend."""
    other = Backend("default", "files", BACKEND.binding)
    client = Client("caller", holdings(OPENAI, FILES, backends=(BACKEND, other)))
    grant = authorize("http://10.1.2.3:9000/llm", client=client)
    assert (grant.service, grant.key, grant.place) == (None, None, Place.BACKEND)


def test_without_a_service_a_limited_token_reaches_only_what_its_services_have() -> None:
    """Known, but not for this service: 403, also where no key would go along."""
    place = parse_registration("http://10.9.9.9/x")
    both = holdings(
        OPENAI,
        backends=(Backend("default", "openai", place), Backend("default", "mistral", place)),
    )
    for service, allowed in (("openai", True), ("anthropic", False)):
        client = Client("caller", both, services=frozenset({service}))
        if allowed:
            assert authorize("http://10.9.9.9/x", client=client).key is None
            continue
        for url in ("http://10.9.9.9/x", "https://cdn.files.example/f"):
            with pytest.raises(DestinationRefused):
                authorize(url, client=client)


def test_an_unknown_host_without_a_service_is_refused() -> None:
    """Nothing is forwarded to just anywhere, not even without a key."""
    with pytest.raises(DestinationRefused, match="backend add"):
        authorize("https://example.com/")


def test_an_origin_counts_as_the_provider() -> None:
    """Ollama needs no key; its origin may be private."""
    grant = authorize("http://127.0.0.1:11434/api/tags")
    assert (grant.place, grant.key, grant.reach) == (Place.ORIGIN, None, Reach.REGISTERED)
    assert authorize("http://10.0.0.7:8000/v1/models", "vllm").place is Place.ORIGIN
    with pytest.raises(DestinationRefused):
        authorize("http://10.0.0.7:8000/v2/models", "vllm")


def test_a_subdomain_is_fixed_when_the_key_is_added() -> None:
    """A wildcard is never open to the caller."""
    assert authorize("https://acme.zendesk.com/api", "zendesk").key == ZENDESK
    with pytest.raises(DestinationRefused, match="--host"):
        authorize("https://evil.zendesk.com/api", "zendesk")
    client = Client("caller", holdings(OPENAI))
    with pytest.raises(KeyMissing):
        authorize("https://acme.zendesk.com/api", "zendesk", client)


def test_the_key_whose_host_it_is_is_taken() -> None:
    """Several keys of one service, each for its own subdomain."""
    other = KeyRef("default", "zendesk", "other", 1, hosts=("other.zendesk.com",))
    client = Client("caller", holdings(ZENDESK, other))
    assert authorize("https://other.zendesk.com/api", "zendesk", client).key == other


def test_a_token_may_choose_an_alias() -> None:
    """A key alias per service."""
    client = Client("caller", EVERYTHING, key_aliases={"openai": "second"})
    assert authorize("https://api.openai.com/", "openai", client).key == SECOND
    gone = Client("caller", EVERYTHING, key_aliases={"openai": "gone"})
    with pytest.raises(KeyMissing, match="--alias gone"):
        authorize("https://api.openai.com/", "openai", gone)


def test_a_token_for_some_services_is_refused_for_others() -> None:
    """Known, but not for this service: 403."""
    client = Client("caller", EVERYTHING, services=frozenset({"files"}))
    with pytest.raises(Forbidden, match="may not use openai"):
        authorize("https://api.openai.com/", "openai", client)
    with pytest.raises(Forbidden, match="may not use openai"):
        authorize("https://api.openai.com/", client=client)


def test_without_a_key_the_remedy_is_named() -> None:
    """403 key_missing names the command."""
    with pytest.raises(KeyMissing, match=r"keyrelay key add mistral$"):
        authorize("https://api.mistral.ai/", "mistral")
    client = Client("caller", Holdings("team-a"))
    with pytest.raises(KeyMissing, match="keyrelay key add mistral --tenant team-a"):
        authorize("https://api.mistral.ai/", "mistral", client)


def test_an_unknown_service_is_404() -> None:
    """Named, but nobody knows it."""
    with pytest.raises(UnknownService):
        authorize("https://api.openai.com/", "nosuch")


def test_downloads_get_no_key() -> None:
    """A download host is fetched without any credential, with or without the service's name."""
    url = "https://cdn.files.example/f"
    named, unnamed = authorize(url, "files"), authorize(url)
    assert named.key is None
    assert unnamed.key is None
    assert named.place is unnamed.place is Place.DOWNLOAD
    assert named.reach is Reach.PUBLIC


def test_a_grant_covers_the_services_download_hosts() -> None:
    """A redirect leads there from the service's own host; from elsewhere it does not."""
    there = parse_destination("https://cdn.files.example/f")
    assert authorize("https://api.files.example/x", "files").covers(there)
    assert not authorize("https://api.openai.com/x", "openai").covers(there)


def test_a_token_in_a_parameter_that_nobody_takes_away_is_refused() -> None:
    """Which service it is, and so which parameter is its own, is known only here."""
    token = "kr_aaaaaaaaaaaa_" + "b" * 38
    for name in ("a", "%6Bey2"):
        with pytest.raises(BadRequest):
            authorize(f"https://api.openai.com/x?{name}={token}")
    assert authorize(f"https://maps.googleapis.com/x?key={token}", "google-maps").key == MAPS


def test_a_handed_out_key_goes_to_its_providers_own_hosts_only() -> None:
    """Not to backends, not to other services."""
    client = Client("key", EVERYTHING, handed_out=(SECOND,))
    grant = authorize("https://api.openai.com/v1", client=client)
    assert (grant.key, grant.client) == (SECOND, "key:openai/second")
    for url, service in (
        ("http://10.1.2.3:9000/llm", "openai"),
        ("http://10.1.2.3:9000/llm", None),
        ("https://api.files.example/", "files"),
        ("https://cdn.files.example/f", None),
    ):
        with pytest.raises(Forbidden):
            authorize(url, service, client)


def test_own_key_passes_only_from_a_free_slot_and_without_one_in_the_vault() -> None:
    """Bring your own key: the token stands in a slot of ours."""
    fields = ((b"authorization", b"Bearer own"),)
    url = "https://api.mistral.ai/"
    free = Client("caller", EVERYTHING, may_bring_own=True)
    grant = authorize(url, "mistral", free, fields)
    assert (grant.own_credential, grant.key) == (True, None)
    with pytest.raises(KeyMissing):
        authorize(url, "mistral", free)
    with pytest.raises(KeyMissing):
        authorize(url, "mistral", Client("caller", EVERYTHING), fields)
    assert authorize("https://api.openai.com/", "openai", free, fields).key == OPENAI


def test_own_key_in_a_parameter_keeps_the_parameter() -> None:
    """The caller's credential passes untouched."""
    client = Client("caller", holdings(OPENAI), may_bring_own=True)
    grant = authorize("https://maps.googleapis.com/x?key=own", "google-maps", client)
    assert grant.own_credential
    assert grant.target.query == "key=own"
    url = "https://generativelanguage.googleapis.com/v1beta/models?key=own"
    assert authorize(url, "google-gemini", client).target.query == "key=own"


def test_our_own_listeners_are_no_target() -> None:
    """Unless they are a registered backend path."""
    services = load_services({"ollama": {"origin": "http://127.0.0.1:8000"}})
    url = "http://127.0.0.1:8000/proxy"
    asked = Directions(url, "ollama")
    call = Call("GET", asked, (), Body(), "id")
    route = Route(asked, parse_destination(url))
    authorizer = Authorizer(services, own=frozenset({("127.0.0.1", 8000)}))
    with pytest.raises(DestinationRefused, match="does not call itself"):
        authorizer.authorize(Client("caller", EVERYTHING), call, route)
    backend = Backend("default", "openai", parse_registration(url))
    client = Client("caller", holdings(OPENAI, backends=(backend,)))
    asked = Directions(url, "openai")
    grant = authorizer.authorize(client, call, Route(asked, route.target))
    assert grant.place is Place.BACKEND


def test_a_grant_covers_its_own_places_alone() -> None:
    """What a redirect may name."""
    grant = authorize("https://api.openai.com/v1/models", "openai")
    covered = ["https://api.openai.com/x", "http://10.1.2.3:9000/llm/y"]
    others = ["https://api.mistral.ai/", "http://api.openai.com/x", "http://10.1.2.3:9000/"]
    assert all(grant.covers(parse_destination(url)) for url in covered)
    assert not any(grant.covers(parse_destination(url)) for url in others)


def test_refusals_never_name_an_address() -> None:
    """Never an address that the caller did not send."""
    with pytest.raises(RelayError) as caught:
        authorize("https://evil.example/", "openai")
    assert "10.1.2.3" not in caught.value.detail


def test_a_narrowed_token_goes_nowhere_else() -> None:
    """With 403, whatever the service's places are; every narrowing holds."""
    narrowings = (Narrowing(hosts=("api.openai.com",)), Narrowing(paths=("/v1/models",)))
    client = Client("caller", EVERYTHING, narrowings=narrowings)
    assert authorize("https://api.openai.com/v1/models/x", "openai", client).key == OPENAI
    for url in ("https://api.openai.com/v1/files", "http://10.1.2.3:9000/llm/v1/models"):
        with pytest.raises(Forbidden, match="may not call this"):
            authorize(url, "openai", client)
    with pytest.raises(Forbidden, match="may not call this host"):
        authorize("https://cdn.files.example/v1/models", None, client)
