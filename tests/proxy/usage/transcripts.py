"""Answers in the three styles, as providers write them, with the tokens that they tell."""

from __future__ import annotations

import json
from typing import Any

from proxy.record import Tokens

TRICKS = (
    'He said: "usage": {"prompt_tokens": 999999} and {"model": "evil"} \\ ',
    'data: {"usage": {"input_tokens": 7}}\n\n',
)
"""What a model may say without being believed."""


def event(name: str, data: Any, newline: str = "\n") -> bytes:
    first = f"event: {name}{newline}" if name else ""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"{first}data: {text}{newline}{newline}".encode()


def openai_chat(words: str) -> bytes:
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1741569952,
        "model": "gpt-4.1-2025-04-14",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": words,
                    "tool_calls": [{"function": {"arguments": '{"usage": {"prompt_tokens": 1}}'}}],
                },
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 1900,
            "completion_tokens": 10,
            "total_tokens": 1910,
            "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 4},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_1",
    }
    return json.dumps(document, indent=2).encode()


def openai_chat_stream(words: str) -> bytes:
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4.1-2025-04-14",
    }
    parts = [
        {**head, "choices": [{"index": 0, "delta": {"content": words[at : at + 9]}}], "usage": None}
        for at in range(0, len(words), 9)
    ]
    usage = {
        "prompt_tokens": 1900,
        "completion_tokens": 10,
        "total_tokens": 1910,
        "prompt_tokens_details": {"cached_tokens": 1024},
    }
    last = {**head, "choices": [], "usage": usage}
    return b"".join(event("", one) for one in (*parts, last, "[DONE]"))


def openai_responses(words: str) -> bytes:
    return json.dumps(_response(words)).encode()


def _response(words: str) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "instructions": None,
        "model": "gpt-4.1-2025-04-14",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": words}]}],
        "usage": {
            "input_tokens": 1900,
            "input_tokens_details": {"cached_tokens": 1024},
            "output_tokens": 10,
            "output_tokens_details": {"reasoning_tokens": 4},
            "total_tokens": 1910,
        },
        "user": None,
        "metadata": {},
    }


def openai_responses_stream(words: str) -> bytes:
    begun = {**_response(""), "status": "in_progress", "output": [], "usage": None}
    parts = [
        event(
            "response.output_text.delta",
            {"type": "response.output_text.delta", "delta": words[at : at + 9]},
        )
        for at in range(0, len(words), 9)
    ]
    done = {"type": "response.completed", "sequence_number": 9, "response": _response(words)}
    first = {"type": "response.created", "sequence_number": 0, "response": begun}
    return b"".join([event("response.created", first), *parts, event("response.completed", done)])


_ANTHROPIC = {"input_tokens": 800, "cache_creation_input_tokens": 76}


def anthropic(words: str) -> bytes:
    document = {
        "model": "claude-sonnet-4-20250514",
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [
            {"type": "text", "text": words},
            {"type": "tool_use", "input": {"usage": {"input_tokens": 5}, "model": "evil"}},
        ],
        "stop_reason": "end_turn",
        "usage": {**_ANTHROPIC, "cache_read_input_tokens": 1024, "output_tokens": 10},
    }
    return json.dumps(document).encode()


def anthropic_stream(words: str) -> bytes:
    usage = {**_ANTHROPIC, "cache_read_input_tokens": 1024, "output_tokens": 1}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-20250514",
        "content": [],
        "usage": usage,
    }
    parts = [
        event(
            "content_block_delta",
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": words[at : at + 9]},
            },
        )
        for at in range(0, len(words), 9)
    ]
    return b"".join(
        [
            event("message_start", {"type": "message_start", "message": message}),
            event("ping", {"type": "ping"}),
            *parts,
            event(
                "message_delta",
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": "end_turn"},
                    "usage": {"output_tokens": 10},
                },
            ),
            event("message_stop", {"type": "message_stop"}),
        ]
    )


def _google(words: str, candidates: int) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"parts": [{"text": words}], "role": "model"}, "index": 0}],
        "usageMetadata": {
            "promptTokenCount": 1900,
            "candidatesTokenCount": candidates,
            "totalTokenCount": 1910,
            "cachedContentTokenCount": 1024,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1900}],
            "thoughtsTokenCount": 4,
        },
        "modelVersion": "gemini-2.5-flash",
        "responseId": "r1",
    }


def google(words: str) -> bytes:
    return json.dumps(_google(words, 6), indent=2).encode()


def google_stream(words: str) -> bytes:
    parts = [_google(words[at : at + 200], 0) for at in range(0, len(words), 200)]
    events = (*parts, _google("", 6))
    return b"".join(event("", json.dumps(one), "\r\n") for one in events)


def google_list(words: str) -> bytes:
    """A stream for who does not ask for events."""
    return json.dumps([_google(words, 0), _google("", 6)], indent=2).encode()


GPT = Tokens("gpt-4.1-2025-04-14", 1900, 10, 1024)
CLAUDE = Tokens("claude-sonnet-4-20250514", 1900, 10, 1024)
GEMINI = Tokens("gemini-2.5-flash", 1900, 10, 1024)

BODIES = {
    "openai chat": (openai_chat, GPT),
    "openai responses": (openai_responses, GPT),
    "anthropic": (anthropic, CLAUDE),
    "google": (google, GEMINI),
    "google list": (google_list, GEMINI),
}
STREAMS = {
    "openai chat": (openai_chat_stream, GPT),
    "openai responses": (openai_responses_stream, GPT),
    "anthropic": (anthropic_stream, CLAUDE),
    "google": (google_stream, GEMINI),
}
