"""The floor: uvicorn with httptools and uvloop, and an application that only answers."""

from __future__ import annotations

import sys

from bench import matter
from bench.case import Bodies, Case, Expected, Site, post
from bench.room import ROOT, Room, free_port
from bench.running import Program


def site(room: Room, bodies: Bodies) -> Site:
    port = free_port()
    server = [sys.executable, "-m", "uvicorn", "bench.floor:app", "--port", str(port)]
    how = ["--loop", "uvloop", "--http", "httptools", "--lifespan", "off", "--no-access-log"]
    folder = room.folder("uvicorn")
    program = Program("uvicorn", [*server, *how], folder, port, {"PYTHONPATH": str(ROOT)})
    bare = Case("bare", post("/", bodies["question"]), Expected(body=matter.ANSWER))
    return Site("uvicorn", program, (bare,))
