"""A PostgreSQL that does what it is told, and whose answer is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.database import DatabaseGone, Line


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Of transactions of `Line`, from now on."""
    found = Answers()
    whole = Line.transaction

    @asynccontextmanager
    async def transaction(line: Line, **kind: Any) -> AsyncIterator[Any]:
        async with whole(line, **kind) as connection:
            yield connection
        if found.lost:
            line._drop()
            raise DatabaseGone("the answer was lost")

    monkeypatch.setattr(Line, "transaction", transaction)
    return found


class Answers:
    """`lost`: whether they are, from now on, once the thing is done."""

    lost = False
