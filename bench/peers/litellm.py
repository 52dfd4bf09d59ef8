"""LiteLLM's proxy: forwards and streams without a cache, and hits from its cache in memory."""

from __future__ import annotations

import json
from pathlib import Path

from bench import matter
from bench.case import Bodies, Case, Expected, Site, post
from bench.room import Room, bench_python, free_port
from bench.running import Program

TOKEN = ("Authorization", "Bearer sk-bench-token")
LONGER = 3
"""It answers so few requests that those in flight at the end would weigh."""


def site(room: Room, bodies: Bodies) -> Site:
    forward = Case("forward", post(matter.COMPLETIONS, bodies["question"], TOKEN), longer=LONGER)
    stream = post(matter.COMPLETIONS, bodies["stream"], TOKEN)
    sse = Case("sse", stream, Expected(body=b"[DONE]"), True, LONGER)
    return Site("litellm", _program(room, "litellm", {}), (forward, sse))


def cache_site(room: Room, bodies: Bodies) -> Site:
    cache = {"cache": True, "cache_params": {"type": "local"}}
    load = post(matter.COMPLETIONS, bodies["question"], TOKEN)
    hit = Case("hit", load, Expected("x-litellm-cache-key"), longer=LONGER)
    return Site("litellm-cache", _program(room, "litellm-cache", cache), (hit,))


def _program(room: Room, name: str, settings: dict[str, object]) -> Program:
    port, folder = free_port(), room.folder(name)
    (folder / "config.yaml").write_text(json.dumps(_config(room, settings)))
    script = Path(bench_python("litellm")).parent / "litellm"
    where = ["--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    command = [str(script), *where, "--num_workers", "1", "--telemetry", "False"]
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    return Program(name, command, folder, port, quiet, ready="/health/liveliness")


def _config(room: Room, settings: dict[str, object]) -> dict[str, object]:
    return {
        "model_list": [_model(matter.MODEL, room.plain), _model(matter.FLOWING, room.origin)],
        "litellm_settings": settings,
        "general_settings": {"master_key": TOKEN[1].removeprefix("Bearer ")},
    }


def _model(name: str, port: int) -> dict[str, object]:
    place = {"api_base": f"http://127.0.0.1:{port}/v1", "api_key": "sk-plain-0123456789abcdef"}
    return {"model_name": name, "litellm_params": {"model": f"openai/{name}", **place}}
