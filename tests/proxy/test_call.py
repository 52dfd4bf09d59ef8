"""Request targets to directions: the vectors, round trips through every form, hostile octets."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.call import Directions, parse_directions
from proxy.destinations import parse_destination
from proxy.errors import BadCall, NotFound, RelayError

VECTORS = yaml.safe_load((Path(__file__).parent.parent / "vectors/calls.yaml").read_text())

BASES = {
    "openai": "https://api.openai.com",
    "openai-x": "https://x.openai.test",
    "gemini": "https://generativelanguage.googleapis.com",
    "deep": "https://deep.test",
    "deepgram": "https://api.deepgram.com",
    "custom": "http://127.0.0.1:9000/api",
    "zendesk": None,
}


class Services:
    """A few services, one with an alias and one without a base."""

    names = frozenset({*BASES, "google"})

    def canonical(self, name: str) -> str | None:
        return "gemini" if name == "google" else name if name in BASES else None

    def base(self, name: str) -> str | None:
        return BASES[name]


SERVICES = Services()


def parse(target: str) -> Directions:
    return parse_directions(target.encode(), SERVICES)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vector(vector: dict[str, Any]) -> None:
    """Each form and rule of the grammar, as the vector's reason says."""
    target = vector["target"]
    if "status" in vector:
        with pytest.raises((BadCall, NotFound)) as refusal:
            parse(target)
        assert refusal.value.status == vector["status"]
        assert vector["says"] in refusal.value.detail
    else:
        assert parse(target) == Directions(
            vector["url"],
            vector.get("service"),
            vector.get("cache"),
            vector.get("invalidate", False),
        )


def test_vectors_have_names_of_their_own_and_reasons() -> None:
    """A vector that nobody can explain or find is none."""
    names = [vector["name"] for vector in VECTORS]
    assert len(set(names)) == len(names)
    assert all(vector["why"] for vector in VECTORS)


def test_octets_that_are_no_text_are_refused() -> None:
    """A raw octet that is not UTF-8 has no meaning in a URL."""
    with pytest.raises(BadCall, match="UTF-8"):
        parse_directions(b"/proxy/openai/\xff", SERVICES)


def test_refusals_never_repeat_what_was_sent() -> None:
    """A key or a token may stand anywhere in a wrong call."""
    secret = "kr_abc_0123456789"
    for target in (
        f"/proxy/{secret}",
        f"/proxy?service={secret}",
        f"/proxy?server=https://x.test&service=A{secret}",
        f"/proxy?server=https://x.test&cache={secret}",
        f"/proxy?server=https://x.test&invalidate={secret}",
        f"/proxy/openai/cache={secret}/-/x",
        f"/proxy/openai/v1?a={secret}%",
    ):
        with pytest.raises(RelayError) as refusal:
            parse(target)
        assert secret not in refusal.value.detail


# -- round trips: one call, rendered into every form, reads the same ------------------------------

segments = st.lists(
    st.text("abcXYZ019-_.~:@!$'()*,;", min_size=1, max_size=6)
    .filter(lambda text: text.strip(".") and text[0].isalpha())
    .map(lambda text: text + "%20%C3%A9"),
    min_size=1,
    max_size=4,
)
own_parameters = st.lists(
    st.tuples(st.sampled_from(["a", "b", "limit", "tag[]"]), st.text("ab1+%", max_size=4)).map(
        lambda pair: f"{quote(pair[0])}={quote(pair[1], safe='+')}"
    ),
    max_size=3,
    unique=True,
)
places = st.sampled_from(
    ["https://api.openai.com/v1", "http://127.0.0.1:8080", "https://x.test/a/b%20c"]
)
services = st.sampled_from(["openai", "deep", "deepgram", "gemini"])
times = st.integers(1_000_000_000, 9_999_999_999)


def steering(service: str, cache: int, invalidate: bool) -> str:
    return (
        f"service={service}&cache={cache}"
        if not invalidate
        else (f"service={service}&cache={cache}&invalidate")
    )


@given(places, segments, own_parameters, services, times, st.booleans())
@settings(max_examples=150, deadline=None)
def test_one_call_reads_the_same_in_every_form(
    place: str, path: list[str], own: list[str], service: str, cache: int, invalidate: bool
) -> None:
    """What seven clients make of one base_url is one call."""
    down = "/".join(path)
    tail = f"/{down}"
    more = "&" + "&".join(own) if own else ""
    query = "?" + "&".join(own) if own else ""
    wanted = Directions(f"{place}{tail}{query}", service, cache, invalidate)
    control = steering(service, cache, invalidate)
    encoded = f"server={quote(place, safe='')}"
    flag = "=" if invalidate else ""
    forms = [
        f"/proxy?server={quote(place + tail + query, safe='')}&{control}",
        f"/proxy?{control}&server={quote(place + tail, safe='')}{more}",
        f"/proxy?{control}&{encoded}{tail}{query}",
        f"/proxy?{encoded}&{control}{tail}{more}",
        f"/proxy?{encoded}&{control}{tail}{query}",
        f"/proxy/?{encoded}&{control}{down}{more}",
        f"/proxy?{encoded}&{control}{quote(tail, safe='')}{flag}{more}",
        f"/proxy{tail}?{encoded}&{control}{more}",
        f"/proxy{tail}{query or '?'}{'?' if own else ''}{encoded}&{control}",
        f"/proxy{tail}{query or '?'}{'?' if own else ''}{encoded}&{control}{more}",
        f"http://relay.test/proxy?{encoded}&{control}{tail}{query}",
    ]
    for form in forms:
        assert parse(form) == wanted, form


@given(segments, own_parameters, services, times, st.booleans())
@settings(max_examples=100, deadline=None)
def test_one_call_reads_the_same_in_every_path_form(
    path: list[str], own: list[str], service: str, cache: int, invalidate: bool
) -> None:
    """Service, host and `server=` in the path differ only in who says the service."""
    place = BASES[service]
    assert place is not None
    tail = "/" + "/".join(path)
    query = "?" + "&".join(own) if own else ""
    more = "&" + "&".join(own) if own else ""
    flag = "/invalidate" if invalidate else ""
    late = f"?cache={cache}{'&invalidate' if invalidate else ''}{more}"
    by_host = place.replace("://", "/")
    wanted = Directions(f"{place}{tail}{query}", service, cache, invalidate)
    nameless = Directions(wanted.url, None, cache, invalidate)
    assert parse(f"/proxy/{service}/cache={cache}{flag}/-{tail}{query}") == wanted
    assert parse(f"/proxy/{service}{tail}{late}") == wanted
    assert parse(f"/proxy/{by_host}/service={service}/cache={cache}{flag}/-{tail}{query}") == wanted
    assert parse(f"/proxy/{by_host}{tail}{late}") == nameless
    assert parse(f"/proxy/server={place}{tail}{late}") == nameless
    assert parse(f"/proxy/server={quote(place, safe='')}{tail}{late}") == nameless


hostile = st.lists(
    st.sampled_from(
        [
            "server=https://evil.test",
            "server=https%3A%2F%2Fevil.test",
            "service=gemini",
            "cache=1",
            "invalidate",
            "invalidate=1",
            "a=1",
            "/x",
            "?server=https://evil.test",
            "%26server=https://evil.test",
            "%3Fcache=1",
        ]
    ),
    min_size=1,
    max_size=4,
)


@given(
    st.sampled_from(["&", "?"]),
    hostile,
    st.sampled_from(
        [
            "/proxy?server=https://x.test&service=openai&cache=5/chat",
            "/proxy?server=https://x.test&cache=5&service=openai%2Fchat",
            "/proxy/?server=https://x.test&cache=5&service=openaichat",
            "/proxy/openai/cache=5/-/chat",
        ]
    ),
)
@settings(max_examples=150, deadline=None)
def test_nothing_behind_a_tail_steers(mark: str, more: list[str], call: str) -> None:
    """Whoever controls the parameters of a call controls neither place, service nor cache."""
    mark = "?" if call.startswith("/proxy/openai") else mark
    read = parse(call + mark + "&".join(more))
    target = parse_destination(read.url)
    assert (target.scheme, target.port, read.service) == ("https", 443, "openai")
    assert target.host in ("x.test", "api.openai.com")
    assert target.path == "/chat"
    assert (read.cache, read.invalidate) == (5, False)
    assert target.query is not None
    assert target.query.endswith("&".join(more))


pieces = st.lists(
    st.sampled_from(
        [
            *(
                "/proxy",
                "/",
                "?",
                "&",
                "=",
                "-",
                "//",
                "%2F",
                "%2f",
                "%3F",
                "%26",
                "%",
                "%0A",
                "%00",
            ),
            *("server", "service", "cache", "invalidate", "https", "http", ":", "https://x.test/y"),
            *("https%3A%2F%2Fx.test%2Fy", "openai", "deepgram", "zendesk", "5", "1893456000", "."),
            *("..", "%2e", "true", "0", "#", "\\", " ", "é", "\u200b", "%C3%A9", "%FF", "+", "@"),
        ]
    ),
    max_size=14,
).map(lambda some: "".join(some).encode())


@given(st.one_of(st.binary(max_size=60), pieces, pieces.map(lambda some: b"/proxy?server=" + some)))
@settings(max_examples=200, deadline=None)
def test_any_octets_are_read_or_refused(target: bytes) -> None:
    """Never an exception but a RelayError below 500; what is read is ASCII but for its host."""
    try:
        read = parse_directions(target, SERVICES)
    except RelayError as refusal:
        assert refusal.status in (400, 404)
        assert refusal.detail.endswith((".", "..."))
        return
    _, _, behind = read.url.partition("://")
    assert behind[len(behind.split("/")[0].split("?")[0]) :].isascii()
    assert read.service is None or read.service in BASES
