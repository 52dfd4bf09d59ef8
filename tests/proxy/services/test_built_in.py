"""The project's own services.yaml."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from proxy.services import Services, Slot, load_services
from proxy.services.schema import NAME, RESERVED
from proxy.services.table import document

ROOT = Path(__file__).parents[3]
FILE = ROOT / "proxy/services/services.yaml"

HEADERS = {
    "openai": "Authorization: Bearer {key}",
    "anthropic": "x-api-key: {key}",
    "google-gemini": "x-goog-api-key: {key}",
    "azure-openai": "api-key: {key}",
    "clarifai": "Authorization: Key {key}",
    "deepgram": "Authorization: Token {key}",
    "assemblyai": "Authorization: {key}",
    "elevenlabs": "xi-api-key: {key}",
    "fal": "Authorization: Key {key}",
    "brave-search": "X-Subscription-Token: {key}",
    "coinmarketcap": "X-CMC_PRO_API_KEY: {key}",
    "deepl": "Authorization: DeepL-Auth-Key {key}",
    "onesignal": "Authorization: Basic {key}",
    "klaviyo": "Authorization: Klaviyo-API-Key {key}",
    "discord-bot": "Authorization: Bot {key}",
    "messagebird": "Authorization: AccessKey {key}",
    "gitlab": "PRIVATE-TOKEN: {key}",
    "pagerduty": "Authorization: Token token={key}",
    "okta": "Authorization: SSWS {key}",
    "stripe": "Authorization: Bearer {key}",
}
PARAMETERS = {
    "google-maps": "key",
    "unsplash": "client_id",
    "giphy": "api_key",
    "here": "apiKey",
    "openweathermap": "appid",
    "ipinfo": "token",
    "builtwith": "KEY",
    "guardian": "api-key",
    "mapbox": "access_token",
    "youtube-data": "key",
}
BASIC = {
    "langfuse": "{public_key}:{key}",
    "mailgun": "api:{key}",
    "twilio": "{account_sid}:{key}",
    "zendesk": "{email}/token:{key}",
    "jira": "{email}:{key}",
}
DEFAULTS = {
    "anthropic": (b"anthropic-version", b"2023-06-01"),
    "runway": (b"x-runway-version", b"2024-11-06"),
    "pinecone": (b"x-pinecone-api-version", b"2025-10"),
    "klaviyo": (b"revision", b"2024-07-15"),
    "github": (b"x-github-api-version", b"2022-11-28"),
    "notion": (b"notion-version", b"2022-06-28"),
}


@pytest.fixture(scope="module")
def services() -> Services:
    return load_services()


def slots(services: Services, name: str) -> tuple[Slot, ...]:
    service = services.get(name)
    assert service is not None
    return service.slots


def test_there_are_157_services_in_seven_categories(services: Services) -> None:
    """155 that have hosts of their own, googleapis over many, and ollama with none."""
    assert len(services.all) == 157
    counted = Counter(service.category for service in services.all)
    assert set(counted) == {"ai", "media", "search", "maps", "data", "comms", "dev"}


def test_no_name_stands_in_the_file_twice() -> None:
    """The parser would let the last one win in silence."""
    root = yaml.compose(FILE.read_text())
    assert isinstance(root, yaml.MappingNode)
    written = [key.value for key, _ in root.value[0][1].value]
    assert len(written) == len(set(written)) == 157


def test_names_follow_the_grammar(services: Services) -> None:
    """Contract section 2: reserved words would hide a path form."""
    assert all(NAME.fullmatch(name) for name in services.names)
    assert services.names.isdisjoint(RESERVED | {"-"})


@pytest.mark.parametrize(("name", "field"), HEADERS.items())
def test_header_with_or_without_prefix(services: Services, name: str, field: str) -> None:
    """How the provider documents its header."""
    key_name, _, template = field.partition(": ")
    assert slots(services, name) == (Slot("header", key_name, template),)


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS.items())
def test_query(services: Services, name: str, parameter: str) -> None:
    """How the provider documents its parameter."""
    assert slots(services, name) == (Slot("query", parameter, "{key}"),)


@pytest.mark.parametrize(("name", "template"), BASIC.items())
def test_basic(services: Services, name: str, template: str) -> None:
    """What stands for user and password (RFC 7617)."""
    assert slots(services, name) == (Slot("basic", "Authorization", template),)


@pytest.mark.parametrize(("name", "field"), DEFAULTS.items())
def test_version_headers(services: Services, name: str, field: tuple[bytes, bytes]) -> None:
    """A version is a default, not a part of the key."""
    service = services.get(name)
    assert service is not None
    assert service.defaults == (field,)


def test_path(services: Services) -> None:
    """Telegram's key is a segment, in front or behind `file`."""
    assert slots(services, "telegram") == (Slot("path", "bot", "bot{key}", ("file",)),)


def test_two_fields(services: Services) -> None:
    """Two secrets, one secret twice, one secret with something that may be shown."""
    assert slots(services, "datadog") == (
        Slot("header", "DD-API-KEY", "{key}"),
        Slot("header", "DD-APPLICATION-KEY", "{application_key}"),
    )
    assert slots(services, "supabase") == (
        Slot("header", "apikey", "{key}"),
        Slot("header", "Authorization", "Bearer {key}"),
    )
    assert slots(services, "vonage") == (
        Slot("query", "api_key", "{key}"),
        Slot("query", "api_secret", "{api_secret}"),
    )
    algolia = services.get("algolia")
    assert algolia is not None
    assert [(part.name, part.secret) for part in algolia.parts] == [
        ("application_id", False),
        ("key", True),
    ]
    assert slots(services, "rapidapi")[1] == Slot("header", "x-rapidapi-host", "{host}")


@pytest.mark.parametrize(
    "name", ["googleapis", "google-maps", "google-gemini", "google-places-routes", "youtube-data"]
)
def test_a_backend_receives_googles_key_as_x_goog_api_key(services: Services, name: str) -> None:
    """Contract section 5, even where the final call needs `?key=`."""
    service = services.get(name)
    assert service is not None
    assert [(s.name.lower(), s.template) for s in service.backend_slots] == [
        ("x-goog-api-key", "{key}")
    ]
    assert service.parameters == ("key",)


def test_googleapis_is_one_name_over_its_hosts(services: Services) -> None:
    """Maps want a parameter, all others the field."""
    google = services.get("googleapis")
    assert google is not None
    assert google.slots_for("maps.googleapis.com") == (Slot("query", "key", "{key}"),)
    for host in ("places.googleapis.com", "www.googleapis.com", "127.0.0.1"):
        assert google.slots_for(host) == (Slot("header", "x-goog-api-key", "{key}"),)


def test_backends_get_header_fields_only(services: Services) -> None:
    """Any framework reads these; a query would land in its log."""
    for service in services.all:
        carriers = {slot.carrier for slot in service.backend_slots}
        assert carriers <= {"header", "basic"}
        assert bool(carriers) != service.keyless


def test_only_ollama_needs_no_key_and_no_host(services: Services) -> None:
    """It works once an origin is set."""
    assert [s.name for s in services.all if s.keyless or not s.hosts] == ["ollama"]


def test_the_page_of_services_is_current(services: Services) -> None:
    """`python -m proxy.services.table > docs/services.md` writes it anew."""
    assert (ROOT / "docs/services.md").read_text() == document(services)
