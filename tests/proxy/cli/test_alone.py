"""One process at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.cli.failures import Failed
from proxy.cli.session import alone
from proxy.cli.team import OR_WAIT


def test_who_comes_second_is_told_what_to_do(tmp_path: Path) -> None:
    """Where the first was killed its workers still end calls: the lock is theirs."""
    lock = tmp_path / "lock"
    with (
        alone(lock, "it runs"),
        pytest.raises(Failed, match=r"^it runs; stop it, or name another --data; if .* wait a few"),
        alone(lock, "it runs", OR_WAIT),
    ):
        raise AssertionError("both run")
    with alone(lock, "it runs"), pytest.raises(Failed, match=r"--data$"), alone(lock, "it runs"):
        raise AssertionError("both run")
