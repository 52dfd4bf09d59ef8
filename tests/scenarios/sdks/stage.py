"""A running keyrelay, the recording providers of the SDKs' services, and the judge of both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.clock import SystemClock
from tests.scenarios.sdks.compare import holds, seen, slots
from tests.scenarios.sdks.forms import Form, Place, direct, kept
from tests.scenarios.sdks.row import Sdk
from tests.support.origin import Origin, Recorded
from tests.support.relay import Running, running_relay

HOUR = 3600

# google-genai's own session class; names that websockets has moved and deepgram still asks for.
SDK_WARNINGS = [
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:websockets.* is deprecated:DeprecationWarning"),
]


class Stage:
    """Runs rows directly and through keyrelay, and tells what their providers saw."""

    def __init__(self, relay: Running, origins: dict[str, Origin]) -> None:
        self.relay = relay
        self.origins = origins
        self._stranger = ""
        self._direct: dict[str, list[Recorded]] = {}

    def place(self, sdk: Sdk) -> Place:
        """Where to call."""
        until = int(SystemClock().now()) + HOUR
        return Place(self.relay.url, self.origins[sdk.service].url, self.relay.token, until)

    async def stranger(self) -> str:
        """The token of a tenant that has no keys."""
        self._stranger = self._stranger or await self.relay.issue("stranger", tenant="bare")
        return self._stranger

    async def run(self, sdk: Sdk, form: Form) -> tuple[Any, list[Recorded]]:
        """The result of one call, and the requests that reached the provider."""
        origin = self.origins[sdk.service]
        origin.answer_with(sdk.answer)
        before = len(origin.requests)
        result = await sdk.use(form(sdk, self.place(sdk)))
        return result, origin.requests[before:]

    async def directly(self, sdk: Sdk) -> list[Recorded]:
        """What the provider sees of a direct call; asked once."""
        if sdk.name not in self._direct:
            result, self._direct[sdk.name] = await self.run(sdk, direct)
            assert result == sdk.result
        return self._direct[sdk.name]

    async def judge(self, sdk: Sdk, form: Form) -> None:
        """Fails unless the provider sees the direct call again, and the caller the same result.

        Same credential slot and form, path, query, fields and body; no trace of the token.
        """
        directly = await self.directly(sdk)
        result, relayed = await self.run(sdk, form)
        assert result == sdk.result
        assert [slots(one, sdk.key) for one in relayed] == [slots(one, sdk.key) for one in directly]
        assert all(slots(one, sdk.key) for one in relayed)
        assert [seen(one) for one in relayed] == [seen(one) for one in directly]
        assert not any(holds(one, self.relay.token) for one in relayed)

    async def judge_refusal(self, sdk: Sdk, form: Form) -> None:
        """Fails unless the caller is told what its client did, and the provider saw nothing."""
        origin = self.origins[sdk.service]
        before = len(origin.requests)
        with pytest.raises(Exception, match="base_url"):
            await self.run(sdk, form)
        assert len(origin.requests) == before

    async def judge_hit(self, sdk: Sdk) -> None:
        """Fails unless a second call is answered by the cache alone."""
        place = self.place(sdk)
        origin = self.origins[sdk.service]
        origin.answer_with(sdk.answer)
        results = [await sdk.use(kept(sdk, place))]
        before = len(origin.requests)
        results.append(await sdk.use(kept(sdk, place)))
        assert results == [sdk.result, sdk.result]
        assert len(origin.requests) == before


@asynccontextmanager
async def stage(data: Path, sdks: tuple[Sdk, ...]) -> AsyncIterator[Stage]:
    """The stage for these rows."""
    async with AsyncExitStack() as stack:
        keys = {sdk.service: sdk.key for sdk in sdks}
        origins = {service: await stack.enter_async_context(Origin()) for service in keys}
        services = {service: {"origin": origin.url} for service, origin in origins.items()}
        relay = await stack.enter_async_context(running_relay(data, services))
        for service, key in keys.items():
            await relay.add_key(service, key=key)
        yield Stage(relay, origins)
