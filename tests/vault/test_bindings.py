"""Where a key may go: places match by scheme, host, port and whole path segments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault import Binding


def covers(prefix: str, path: str) -> bool:
    return Binding("https", "x.test", 443, prefix).covers("https", "x.test", 443, path)


@pytest.mark.parametrize(
    ("prefix", "path", "covered"),
    [
        ("/", "/", True),
        ("/", "/a/b", True),
        ("/a", "/a", True),
        ("/a", "/a/", True),
        ("/a", "/a/b", True),
        ("/a", "/ab", False),
        ("/a", "/", False),
        ("/a", "/A", False),
        ("/a", "/b/a", False),
        ("/a/", "/a/b", True),
        ("/a/", "/a/b/c", True),
        ("/a/", "/a/", False),
        ("/a/", "/a", False),
        ("/a/", "/ab", False),
        ("/a/b", "/a/b/c", True),
        ("/a/b", "/a", False),
        ("/a/b", "/a/bc", False),
    ],
)
def test_prefixes_match_whole_segments(prefix: str, path: str, covered: bool) -> None:
    """`/a` covers `/a` and what is below, `/a/` only what is below, `/` everything."""
    assert covers(prefix, path) is covered


@pytest.mark.parametrize(
    ("scheme", "host", "port"),
    [
        ("http", "x.test", 443),
        ("https", "y.test", 443),
        ("https", "a.x.test", 443),
        ("https", "x.test", 8443),
    ],
)
def test_another_origin_is_never_covered(scheme: str, host: str, port: int) -> None:
    """Scheme, host and port are compared whole."""
    assert not Binding("https", "x.test", 443, "/").covers(scheme, host, port, "/")


@pytest.mark.parametrize(
    ("binding", "text"),
    [
        (Binding("https", "x.test", 443), "https://x.test/"),
        (Binding("http", "x.test", 80, "/a"), "http://x.test/a"),
        (Binding("http", "x.test", 443, "/a/"), "http://x.test:443/a/"),
        (Binding("http", "::1", 8080), "http://[::1]:8080/"),
        (Binding("https", "::1", 443), "https://[::1]/"),
    ],
)
def test_a_place_reads_as_its_url(binding: Binding, text: str) -> None:
    """Lists show what an admin would write."""
    assert str(binding) == text


segments = st.lists(st.text("ab.%2F", min_size=1, max_size=3), min_size=1, max_size=3)


@given(segments, segments)
def test_covered_means_the_segments_of_the_prefix_come_first(
    prefix: list[str], path: list[str]
) -> None:
    """The rule, said a second way."""
    assert covers("/" + "/".join(prefix), "/" + "/".join(path)) is (path[: len(prefix)] == prefix)
