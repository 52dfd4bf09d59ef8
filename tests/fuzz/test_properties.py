"""The strict parsers under what hypothesis makes of their cases; guided by code: `make fuzz`."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.corpus import seeds
from tests.fuzz.targets import TARGETS


@cache
def given_cases(target: str) -> list[bytes]:
    return list(seeds(target))


def spliced(target: str) -> st.SearchStrategy[bytes]:
    """Pieces of two cases with other octets between them."""
    piece = st.builds(
        lambda case, start, length: case[start : start + length],
        st.sampled_from(given_cases(target)),
        st.integers(0, 60),
        st.integers(0, 120),
    )
    between = st.one_of(st.binary(max_size=6), st.text(max_size=3).map(str.encode))
    return st.builds(lambda *pieces: b"".join(pieces), piece, between, piece, between)


@pytest.mark.parametrize("target", TARGETS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_octets_break_a_rule(target: str, data: st.DataObject) -> None:
    """Those of the target: read or refused as it says there, and never another exception."""
    octets = data.draw(st.one_of(spliced(target), st.binary(max_size=80)))
    TARGETS[target](octets)  # the target asserts
