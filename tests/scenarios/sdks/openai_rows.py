"""openai: chat, responses, embeddings, files; sync, async, streamed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import openai

from tests.scenarios.sdks.row import Door, Sdk
from tests.support.origin import json_reply, sse

CHAT: Mapping[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Grüße, 你好"}],
}
CHAT_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Hello there"},
        }
    ],
}


def chunk(text: str) -> str:
    """One event of a streamed chat, as OpenAI and those who speak like it send it."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return json.dumps(
        {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [choice],
        }
    )


CHAT_STREAM = sse([chunk("Hello"), chunk(" there"), "[DONE]"])


def options(door: Door) -> dict[str, Any]:
    """The arguments of every client that Stainless makes."""
    made: dict[str, Any] = {"base_url": door.base_url, "api_key": door.key, "max_retries": 0}
    if door.query:
        made["default_query"] = dict(door.query)
    return made


def _chat(door: Door) -> Any:
    with openai.OpenAI(**options(door)) as client:
        return client.chat.completions.create(**CHAT).choices[0].message.content


async def _chat_async(door: Door) -> Any:
    async with openai.AsyncOpenAI(**options(door)) as client:
        answer = await client.chat.completions.create(**CHAT)
        return answer.choices[0].message.content


def _stream(door: Door) -> Any:
    with openai.OpenAI(**options(door)) as client:
        parts = client.chat.completions.create(**CHAT, stream=True)
        return [part.choices[0].delta.content for part in parts]


async def _stream_async(door: Door) -> Any:
    async with openai.AsyncOpenAI(**options(door)) as client:
        parts = await client.chat.completions.create(**CHAT, stream=True)
        return [part.choices[0].delta.content async for part in parts]


def _responses(door: Door) -> Any:
    with openai.OpenAI(**options(door)) as client:
        return client.responses.create(model="gpt-4o-mini", input="hi").output_text


def _embeddings(door: Door) -> Any:
    with openai.OpenAI(**options(door)) as client:
        answer = client.embeddings.create(model="e", input=["a"], encoding_format="float")
        return answer.data[0].embedding


def _upload(door: Door) -> Any:
    with openai.OpenAI(**options(door)) as client:
        content = ("lines.jsonl", b'{"a": 1}\n')
        return client.files.create(file=content, purpose="batch").id


def _listing(door: Door) -> Any:
    with openai.OpenAI(**options(door)) as client:
        return [model.id for model in client.models.list()]


_RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "gpt-4o-mini",
    "status": "completed",
    "output": [
        {
            "type": "message",
            "id": "m",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hello there", "annotations": []}],
        }
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}
_EMBEDDINGS = {
    "object": "list",
    "model": "e",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}],
    "usage": {"prompt_tokens": 1, "total_tokens": 1},
}
_FILE = {
    "id": "file-1",
    "object": "file",
    "bytes": 9,
    "created_at": 1,
    "filename": "lines.jsonl",
    "purpose": "batch",
    "status": "processed",
}
_MODELS = {
    "object": "list",
    "data": [{"id": "gpt-4o-mini", "object": "model", "created": 1, "owned_by": "openai"}],
}


def _row(what: str, call: Any, answer: bytes, result: Any) -> Sdk:
    return Sdk(f"openai {what}", "openai", "/v1", call, answer, result, default_query=True)


OPENAI = (
    _row("chat", _chat, json_reply(CHAT_ANSWER), "Hello there"),
    _row("chat, async", _chat_async, json_reply(CHAT_ANSWER), "Hello there"),
    _row("chat, stream", _stream, CHAT_STREAM, ["Hello", " there"]),
    _row("chat, async stream", _stream_async, CHAT_STREAM, ["Hello", " there"]),
    _row("responses", _responses, json_reply(_RESPONSE), "Hello there"),
    _row("embeddings", _embeddings, json_reply(_EMBEDDINGS), [0.5, 1.0]),
    _row("file upload", _upload, json_reply(_FILE), "file-1"),
    _row("models", _listing, json_reply(_MODELS), ["gpt-4o-mini"]),
)
