"""Tests of sockets run on both event loops that users run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.support.outbound import Sender
from tests.support.wire import wire_sender

ON_ONE_LOOP = {"test_answer.py", "test_guards.py", "test_alarm.py"}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name in ON_ONE_LOOP:
        return {"asyncio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def to() -> AsyncIterator[Sender]:
    async with wire_sender() as made:
        yield made
