"""What is sent and answered: a chat completion of 2 KB to a question of 300 octets, and events."""

from __future__ import annotations

import json
from pathlib import Path

MODEL = "bench-model"
FLOWING = "bench-flows"
"""The model whose answers are streams: peers that route by model send it to the origin."""

SIZES = {"1k": 1 << 10, "32k": 1 << 15, "1m": 1 << 20}
HUGE = 1 << 30
CHUNKS = 100
"""Events of one stream."""

COMPLETIONS = "/v1/chat/completions"


def _filled(value: str, size: int) -> bytes:
    """JSON text of exactly this size: its @ becomes as many letters as it takes."""
    return value.replace("@", "a" * (size - len(value) + 1)).encode()


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


ANSWER = _filled(
    _compact(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1700000000,
            "model": MODEL,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "@"},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 40, "completion_tokens": 400, "total_tokens": 440},
        }
    ),
    2048,
)


def question(stream: bool = False) -> bytes:
    """A request's body of 300 octets."""
    wanted: dict[str, object] = {"messages": [{"role": "user", "content": "@"}]}
    model = {"model": FLOWING, "stream": True} if stream else {"model": MODEL}
    return _filled(_compact({**model, **wanted}), 300)


def event(content: str = "word ", finish: str | None = None) -> bytes:
    """One event of a streamed completion."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000}
    return b"data: %s\n\n" % _compact({**frame, "model": MODEL, "choices": [choice]}).encode()


def write_files(folder: Path) -> None:
    """What nginx answers with; the huge file has no blocks on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "answer").write_bytes(ANSWER)
    for name, size in SIZES.items():
        (folder / name).write_bytes(b"a" * size)
    with (folder / "huge").open("wb") as huge:
        huge.truncate(HUGE)


def write_bodies(folder: Path) -> dict[str, Path]:
    """What is sent, by name."""
    bodies = {name: b"a" * size for name, size in SIZES.items()}
    bodies |= {"question": question(), "stream": question(stream=True)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in bodies.items():
        (folder / name).write_bytes(body)
    return {name: folder / name for name in bodies}
