"""The cases that fuzzing found, and those it begins with, hold; the fuzzing itself: `make fuzz`."""

from __future__ import annotations

import pytest

from tests.fuzz.corpus import FOLDER, cases, seeds
from tests.fuzz.targets import TARGETS

CASES = [(target, name) for target in TARGETS for name in cases(target)]


@pytest.mark.parametrize(("target", "name"), CASES)
def test_a_kept_case_breaks_no_rule(target: str, name: str) -> None:
    """What was found once stays mended."""
    octets = cases(target)[name]
    TARGETS[target](octets)  # the target asserts


@pytest.mark.parametrize("target", ["call", "destination"])
def test_the_vectors_break_no_rule(target: str) -> None:
    """Those of the suite, where the fuzzing begins too."""
    given = list(seeds(target))
    for octets in given:
        TARGETS[target](octets)
    assert len(given) > 50


def test_every_target_has_cases_and_every_folder_a_target() -> None:
    """A case without a target would never run."""
    assert {path.name for path in FOLDER.iterdir()} == set(TARGETS)
    assert all(cases(target) for target in TARGETS)
