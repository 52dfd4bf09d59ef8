"""Doubles of the providers that the examples call, and what they answer."""

from __future__ import annotations

import time

from tests.support.origin import json_reply

OPENAI_KEY = "sk-made-up-0123456789abcdefghijklmnop"
MAPS_KEY = "AIza-made-up-0123456789abcdefghijklmn"

ANSWER = "A relay passes on what it is given."
COMPLETION = json_reply(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o-mini",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": ANSWER},
                "finish_reason": "stop",
            }
        ],
    }
)
FOUND = json_reply({"status": "OK", "results": [{"formatted_address": "Berlin, Germany"}]})


def in_an_hour() -> str:
    """A `cache` that lies ahead for the whole of a test."""
    return str(int(time.time()) + 3600)
