"""The floor: what an answer of 2 KB costs in uvicorn when nothing at all is done for it."""

from __future__ import annotations

from typing import Any

from bench.matter import ANSWER

FIELDS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """A bare ASGI application: reads the body, answers."""
    if scope["type"] != "http":
        return
    message = await receive()
    while message.get("more_body"):
        message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": FIELDS})
    await send({"type": "http.response.body", "body": ANSWER})
