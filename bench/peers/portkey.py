"""Portkey's gateway: forwards and streams; the key comes from the caller, it keeps none itself."""

from __future__ import annotations

from bench import matter
from bench.case import Bodies, Case, Expected, Site, post
from bench.load import Load
from bench.room import HERE, MissingError, Room, free_port, program
from bench.running import Program

SERVER = HERE / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"


def site(room: Room, bodies: Bodies) -> Site:
    if not SERVER.exists():
        raise MissingError("portkey is not installed in bench/node_modules")
    port, folder = free_port(), room.folder("portkey")
    command = [program("node"), str(SERVER), f"--port={port}", "--headless"]
    environ = {"NODE_ENV": "production"}
    forward = Case("forward", _load(bodies, "question", room.plain))
    sse = Case("sse", _load(bodies, "stream", room.origin), Expected(body=b"[DONE]"), True)
    return Site("portkey", Program("portkey", command, folder, port, environ), (forward, sse))


def _load(bodies: Bodies, body: str, port: int) -> Load:
    fields = (
        ("Authorization", "Bearer sk-plain-0123456789abcdef"),
        ("x-portkey-provider", "openai"),
        ("x-portkey-custom-host", f"http://127.0.0.1:{port}/v1"),
    )
    return post(matter.COMPLETIONS, bodies[body], *fields)
