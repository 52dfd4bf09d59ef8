"""A page of ours, or somebody else's: what browsers say of it."""

from __future__ import annotations

import pytest

from proxy.admin.origin import OwnOrigin
from proxy.errors import Forbidden

HOST = (b"host", b"relay.test:8000")


def field(name: str, value: str) -> tuple[bytes, bytes]:
    return name.encode(), value.encode()


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (field("sec-fetch-site", "none"),),
        (field("sec-fetch-site", "same-origin"),),
        (field("origin", "http://relay.test:8000"),),
        (field("origin", "https://relay.test:8000"),),
        (field("origin", "https://keys.example"),),
    ],
)
def test_programs_and_our_own_pages_may_ask(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    """Without an Origin, or with that of Host or of server.public_url; TLS may end before us."""
    OwnOrigin("https://keys.example/relay").check((HOST, *fields))


@pytest.mark.parametrize(
    "fields",
    [
        (field("origin", "https://evil.example"),),
        (field("origin", "null"),),
        (field("origin", "http://relay.test"),),
        (field("origin", "https://keys.example.evil"),),
        (field("origin", ""),),
        (field("origin", "http://relay.test:8000"), field("origin", "https://evil.example")),
        (field("sec-fetch-site", "cross-site"),),
        (field("sec-fetch-site", "same-site"), field("origin", "http://relay.test:8000")),
    ],
)
def test_other_pages_may_not(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    """Another host, port or scheme, an opaque origin, two of them; a sibling of the same site."""
    with pytest.raises(Forbidden, match="other origins"):
        OwnOrigin("https://keys.example").check((HOST, *fields))


@pytest.mark.parametrize(
    "fields",
    [(), (field("sec-fetch-site", "none"), field("origin", "http://relay.test:8000"))],
)
def test_a_change_needs_an_origin(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    """Every browser sends it with a POST, and no page makes a navigation without one."""
    with pytest.raises(Forbidden):
        OwnOrigin().check_change((HOST, *fields))
    OwnOrigin().check_change((HOST, field("origin", "http://relay.test:8000")))


def test_without_a_host_nothing_is_ours() -> None:
    """HTTP/1.0 may leave it out."""
    with pytest.raises(Forbidden):
        OwnOrigin().check((field("origin", "http://"),))
