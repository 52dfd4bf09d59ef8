"""Calls that never happened, and a store for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.record import CallRecord
from proxy.usage import CallRow, Prices, SqliteUsage, Usage, UsageSettings, UsageStore
from proxy.usage.store import DAY
from tests.support.clock import FakeClock

NOON = 1_800_000_000.0 - 1_800_000_000.0 % DAY + DAY / 2
"""The middle of a day (UTC)."""


def a_record(**more: Any) -> CallRecord:
    """A good call, but for what is said."""
    usual: dict[str, Any] = {
        "id": "call-1",
        "began": NOON,
        "tenant": "default",
        "token": "ann",
        "token_id": "id-ann",
        "service": "openai",
        "host": "api.openai.com",
        "method": "POST",
        "status": 200,
        "code": "",
        "verdict": "bypass",
        "cut": False,
        "received": 10,
        "sent": 100,
        "seconds": 0.5,
        "waited": 0.0,
        "upstream_seconds": 0.4,
        "meter": None,
    }
    return CallRecord(**{**usual, **more})


def a_usage(store: UsageStore, prices: Prices | None = None, **more: Any) -> Usage:
    return Usage(store, prices or Prices({}), FakeClock(NOON), UsageSettings(**more))


def a_row(**more: Any) -> CallRow:
    """The row of such a call; members of a row of its own may be said too."""
    own = {name: more.pop(name) for name in list(more) if name not in CallRecord._fields}
    usage = a_usage(SqliteUsage(Path("/nowhere")))
    return usage._row(a_record(**more))._replace(**own)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteUsage]:
    found = SqliteUsage(tmp_path / "usage.db")
    yield found
    found.close()
