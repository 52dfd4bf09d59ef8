"""From tokens to cost."""

from __future__ import annotations

import pytest

from proxy.record import Tokens
from proxy.usage import Price, Prices

TABLE = Prices(
    {
        "gpt*": Price(1, 1),
        "gpt-4o*": Price(2, 8, 1),
        "gpt-4o-mini*": Price(0.5, 2),
        "gpt-4o-mini-2": Price(100, 100),
        "a.c": Price(7, 7),
    }
)


@pytest.mark.parametrize(
    ("model", "input_price"),
    [
        ("gpt-4o-2024-08-06", 2),
        ("gpt-4o-mini", 0.5),
        ("gpt-4o-mini-2", 100),
        ("gpt-5", 1),
        ("a.c", 7),
    ],
)
def test_the_closest_name_counts(model: str, input_price: float) -> None:
    """A plain name before all, then the longest pattern."""
    assert TABLE.cost(Tokens(model, 1_000_000, 0)) == input_price


@pytest.mark.parametrize("model", ["", "abc", "GPT-4o", "my-gpt-4o"])
def test_a_model_without_a_price_has_no_cost(model: str) -> None:
    """None is no zero; letters count, and a dot is a dot."""
    assert TABLE.cost(Tokens(model, 5, 5)) is None
    assert TABLE.cost(Tokens(model, 5, 5)) is None


def test_cached_input_has_a_price_of_its_own() -> None:
    """Or that of any input."""
    assert TABLE.cost(Tokens("gpt-4o", 1000, 100, 600)) == (400 * 2 + 600 * 1 + 100 * 8) / 1e6
    assert TABLE.cost(Tokens("gpt-5", 1000, 100, 600)) == 1100 / 1e6


def test_a_star_alone_prices_what_names_no_model() -> None:
    """Any characters are none too."""
    assert Prices({"*": Price(1, 0)}).cost(Tokens("", 1_000_000, 0)) == 1
