"""One row of the table of SDKs: how to make a client for a door, and what one call of it gives."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from tests.support.origin import Answer


@dataclass(frozen=True, slots=True)
class Door:
    """What a client is told: the provider itself, or one form of a call through keyrelay.

    `query`: for clients that take query parameters apart from their base_url. `fields`: for clients
    that can't be given the token as their key.
    """

    base_url: str
    key: str
    query: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sdk:
    """One call of one real SDK.

    `name`: as listed: the distribution, and what differs. `key`: the provider's, of the right
    shape. `base`: the path of the SDK's base_url at its provider. `call`: makes the client and the
    call, blocking or as a coroutine; what it returns is read out of `answer`, and so must be
    `result`. `default_query`: the client takes query parameters apart. `checks_key`: it takes only
    keys of the provider's shape, so the token goes as a field. `drops`: what of its base_url the
    client loses in this call: the query, or the path too. `follows`: it follows a redirect.
    """

    name: str
    service: str
    base: str
    call: Callable[[Door], Any]
    answer: Answer
    result: Any
    key: str = "sk-the-providers-own-key-0123456789"
    default_query: bool = False
    checks_key: bool = False
    drops: Literal["", "query", "path"] = ""
    follows: bool = True

    @property
    def distribution(self) -> str:
        """The package on the index."""
        return self.name.partition(" ")[0]

    @property
    def version(self) -> str:
        """The release that is installed."""
        return version(self.distribution)

    async def use(self, door: Door) -> Any:
        """The result of the call; blocking calls run in a thread, as the server needs the loop."""
        if inspect.iscoroutinefunction(self.call):
            return await self.call(door)
        return await asyncio.to_thread(self.call, door)
