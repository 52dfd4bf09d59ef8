"""Numbers as people read them: nothing like 1e+03, 1000 kB or 1 min 60 s."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admin.pages.formats import count, money, octets, seconds, share, short, span

SOME = st.floats(min_value=0, max_value=1e8, allow_nan=False)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (count(12345), "12,345"),
        (count(None), "–"),
        (short(9_999), "9,999"),
        (short(9_999.6), "10.0k"),
        (short(44_000), "44.0k"),
        (short(999_600), "1.00M"),
        (short(3.14e12), "3,140G"),
        (share(1, 0), "–"),
        (share(0, 7), "0%"),
        (share(7, 7), "100%"),
        (share(71, 100), "71.0%"),
        (share(99_999, 100_000), "99.9%"),
        (share(1, 100_000), "<0.1%"),
        (money(0.0), "0.00"),
        (money(0.0008), "0.0008"),
        (money(-1234.5), "-1,234.50"),
        (seconds(0.00042), "0.4 ms"),
        (seconds(0.00999), "10 ms"),
        (seconds(0.9996), "1.00 s"),
        (seconds(3.3), "3.30 s"),
        (seconds(59.97), "1 min 0 s"),
        (seconds(119.9), "2 min 0 s"),
        (octets(999), "999 B"),
        (octets(999_600), "1.00 MB"),
        (octets(2_100_000), "2.10 MB"),
        (span(-1), "0 s"),
        (span(119 * 60), "119 min"),
        (span(47 * 3600), "47 h"),
        (span(3 * 365 * 86_400), "3 years"),
    ],
)
def test_a_number_reads_well(made: str, words: str) -> None:
    """At the edges between units too."""
    assert made == words


@given(SOME)
def test_no_number_reads_badly(number: float) -> None:
    """No exponent, no thousand of a unit that has a next one, sixty of nothing."""
    told = [short(number), seconds(number), octets(int(number)), money(number), span(number)]
    for words in told:
        assert re.fullmatch(r"[\d,]+(\.\d+)?( ?[a-zA-Z]+)?( \d+ s)?", words), words
        assert not re.search(r"\b1,?000(k|M| ms| B| kB| MB)|\b60 s", words), words
