"""The end of a server: whatever its calls do, it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy.cli import server as module
from proxy.cli.server import Server
from tests.support.caller import Caller
from tests.support.relay import listener

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Stubborn:
    """An application whose call is not ended by being cancelled, but by `enough`, if at all."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = 0
        self.enough = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        """Begins an answer."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.begun.set()
        while not self.enough.is_set():
            try:
                await self.enough.wait()
            except asyncio.CancelledError:
                self.cancelled += 1


async def asking(server: Server, port: int) -> Caller:
    caller = await Caller.connect(f"http://127.0.0.1:{port}")
    await caller.request("GET", "/")
    return caller


async def test_a_call_that_does_not_end_keeps_no_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It loses its connection, and the log says how many there were."""
    monkeypatch.setattr(module, "LAST_SECONDS", 0.01)
    app, sock = Stubborn(), listener()
    sock.listen()
    server = Server(app, sock, grace=0.01)
    try:
        async with asyncio.timeout(20), server.running():
            caller = await asking(server, sock.getsockname()[1])
            await app.begun.wait()
        assert (app.cancelled, server.cut) == (1, 1)
        assert "calls that do not end: 1" in caplog.messages
        assert (await asyncio.wait_for(caller.answer(), 20)).complete is False
        await caller.close()
    finally:
        app.enough.set()
