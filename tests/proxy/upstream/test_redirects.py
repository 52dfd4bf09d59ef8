"""What becomes of a Location (contract section 4, redirects)."""

from __future__ import annotations

import pytest

from proxy.destinations import parse_destination
from proxy.errors import RedirectRefused
from proxy.grant import Grant, Place, Site
from proxy.messages import Fields, value
from proxy.reach import Reach
from proxy.services import load_services
from proxy.upstream.redirects import Redirects
from vault import Binding

OPENAI = load_services().get("openai")
SITES = (
    Site(Place.PROVIDER, Binding("https", "api.openai.com", 443)),
    Site(Place.BACKEND, Binding("http", "10.0.0.1", 80, "/llm")),
    Site(Place.DOWNLOAD, Binding("https", "cdn.example", 443)),
)
GRANT = Grant(
    "default",
    "caller",
    OPENAI,
    None,
    parse_destination("https://api.openai.com/v1/files?x=1"),
    Place.PROVIDER,
    Reach.PUBLIC,
    sites=SITES,
)


def rewritten(location: str, status: int = 307, public_url: str | None = None) -> bytes | None:
    fields: Fields = ((b"content-type", b"text/plain"), (b"location", location.encode()))
    return value(Redirects(public_url).rewritten(GRANT, status, fields), b"location")


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("https://api.openai.com/v2?a=1&b=2", "https%3A%2F%2Fapi.openai.com%2Fv2%3Fa%3D1%26b%3D2"),
        ("/v2", "https%3A%2F%2Fapi.openai.com%2Fv2"),
        ("//cdn.example/f", "https%3A%2F%2Fcdn.example%2Ff"),
        ("?page=2", "https%3A%2F%2Fapi.openai.com%2Fv1%2Ffiles%3Fpage%3D2"),
        ("http://10.0.0.1/llm/x", "http%3A%2F%2F10.0.0.1%2Fllm%2Fx"),
    ],
)
@pytest.mark.parametrize("status", [201, 301, 302, 303, 307, 308])
def test_an_allowed_location_comes_through_us_again(
    location: str, leads_to: str, status: int
) -> None:
    """Path-absolute where no public URL is set."""
    expected = f"/proxy?server={leads_to}&service=openai"
    assert rewritten(location, status) == expected.encode()


def test_the_public_url_stands_before_it() -> None:
    """`server.public_url`."""
    found = rewritten("/v2", public_url="https://relay.example/")
    assert found is not None
    assert found.startswith(b"https://relay.example/proxy?server=")


def test_a_fragment_stays_with_the_browser() -> None:
    """RFC 9110 section 10.2.2."""
    assert (rewritten("/v2#part") or b"").endswith(b"&service=openai#part")


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/",
        "http://api.openai.com/",
        "https://api.openai.com:444/",
        "https://api.openai.com@evil.example/",
        "https://api.openai.com\\@evil.example/",
        "http://10.0.0.1/llm/..%2fadmin",
        "http://10.0.0.1/",
        "ftp://api.openai.com/",
        "https://[::1/",
        "https://api.openai.com/a b",
        "https://api.openai.com\t/",
        "https://api.öpenai.com/",
    ],
)
def test_any_other_redirect_is_refused_and_named(location: str) -> None:
    """502 redirect_refused, with the URL in the member `location`."""
    with pytest.raises(RedirectRefused) as caught:
        rewritten(location)
    assert caught.value.members["location"].isascii()


@pytest.mark.parametrize("status", [200, 201, 202, 300, 304])
def test_on_other_statuses_a_foreign_location_passes(status: int) -> None:
    """It leads nobody anywhere by itself."""
    assert rewritten("https://evil.example/", status) == b"https://evil.example/"


def test_without_a_location_nothing_changes() -> None:
    """Most answers."""
    fields: Fields = ((b"content-type", b"text/plain"),)
    assert Redirects().rewritten(GRANT, 302, fields) == fields
