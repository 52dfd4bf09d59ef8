"""The destination parser beside two others; a million URLs more: `make fuzz`."""

from __future__ import annotations

import itertools
from collections import Counter

from tests.fuzz.readers import by_ada, by_rfc3986, compare
from tests.fuzz.urls import Urls, main


def test_whatever_we_accept_is_nowhere_read_otherwise() -> None:
    """Scheme, host, port, and path and query by their meaning; whoever else refuses may."""
    found: Counter[str] = Counter()
    for url in itertools.islice(Urls(seed=20261121), 20_000):
        target, refused, differing = compare(url)
        assert not differing, f"{url!r}: {differing}"
        found["accepted"] += target is not None
        found["refused by rfc3986"] += any(name.startswith("rfc3986") for name in refused)
    assert found["accepted"] > 4000
    assert found["refused by rfc3986"] == 0


def test_the_same_seed_gives_the_same_urls() -> None:
    """A difference that was found once is found again."""
    first, second = (list(itertools.islice(Urls(seed), 50)) for seed in (7, 7))
    assert first == second
    assert first != list(itertools.islice(Urls(8), 50))


def test_a_difference_would_be_seen() -> None:
    """The others are asked, and what they say is told apart."""
    for read in (by_ada, by_rfc3986):
        plain = read("https://x.test/a/b?c&d")
        assert plain is not None
        others = ["http://x.test/a/b?c&d", "https://y.test/a/b?c&d", "https://x.test:1/a/b?c&d"]
        others += [
            "https://x.test/a%2Fb?c&d",
            "https://x.test/a/b?c%26d",
            "https://x.test//a/b?c&d",
        ]
        assert plain not in [read(url) for url in others]
        assert read("https://u@x.test/a/b?c&d") != plain
        assert read("https://x.test/%61/b?c&d#") != plain or read is by_ada
    assert by_ada("https://x.test:99999/") is None
    assert by_rfc3986("https://[::1/") is None


def test_a_run_says_what_it_saw(capsys) -> None:
    """`python -m tests.fuzz.urls`."""
    assert main(200, 3) == 0
    assert capsys.readouterr().out.startswith("200 URLs of seed 3: ")
