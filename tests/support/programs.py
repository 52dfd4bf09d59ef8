"""Programs that a test needs: one word where they are not there, or a failure."""

from __future__ import annotations

import os
import shutil

import pytest


def need(*names: str) -> str:
    """The path of the first of these programs that is there."""
    for name in names:
        if found := shutil.which(name):
            return found
    if os.environ.get("KEYRELAY_TESTS_REQUIRE_PROGRAMS"):
        pytest.fail(f"{names[0]} is required here")
    pytest.skip(names[0])
