"""JavaScript clients, each run by Node: `fetch`, and the npm SDKs of OpenAI and Anthropic."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from tests.scenarios.sdks.language import ANTHROPIC_ANSWER, ANTHROPIC_STREAM
from tests.scenarios.sdks.openai_rows import CHAT_ANSWER, CHAT_STREAM
from tests.scenarios.sdks.row import Door, Sdk
from tests.support.node import HOME, Node
from tests.support.origin import json_reply

NODE = Node()
TEXT, PARTS = "Hello there", ["Hello", " there"]


class NpmError(Exception):
    """What a JavaScript client threw."""


def _call(client: str, what: str) -> Callable[[Door], Coroutine[Any, Any, Any]]:
    async def call(door: Door) -> Any:
        query = {"defaultQuery": dict(door.query)} if door.query else {}
        answer = await NODE.ask(
            client=client, what=what, baseURL=door.base_url, apiKey=door.key, **query
        )
        if "error" in answer:
            raise NpmError(answer["error"])
        return answer["result"]

    return call


class NpmSdk(Sdk):
    """A row that Node runs; npm installs its package, if it has one."""

    __slots__ = ()

    @property
    def version(self) -> str:
        """The release that the lock file names."""
        lock = json.loads((HOME / "package-lock.json").read_bytes())
        package = lock["packages"].get(f"node_modules/{self.distribution}", {})
        return str(package.get("version", ""))


def _openai(package: str) -> tuple[Sdk, ...]:
    answers = {"chat": (json_reply(CHAT_ANSWER), TEXT), "stream": (CHAT_STREAM, PARTS)}
    return tuple(
        NpmSdk(
            f"{package} {what}",
            "openai",
            "/v1",
            _call(package, what),
            answer,
            result,
            default_query=True,
        )
        for what, (answer, result) in answers.items()
    )


def _anthropic() -> tuple[Sdk, ...]:
    package = "@anthropic-ai/sdk"
    answers = {"messages": (ANTHROPIC_ANSWER, TEXT), "stream": (ANTHROPIC_STREAM, PARTS)}
    return tuple(
        NpmSdk(
            f"{package} {what}",
            "anthropic",
            "",
            _call(package, what),
            answer,
            result,
            default_query=True,
        )
        for what, (answer, result) in answers.items()
    )


FETCH = NpmSdk(
    "fetch",
    "openai",
    "/v1/chat/completions",
    _call("fetch", ""),
    json_reply(CHAT_ANSWER),
    TEXT,
)
NPM = (FETCH, *_openai("openai"), *_openai("openai-6"), *_anthropic())
