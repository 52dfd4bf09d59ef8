"""Our refusals in real SDKs: each raises its own matching exception, with our sentence in it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio
from google.genai import errors as google

from tests.scenarios.sdks.row import Door, Sdk
from tests.scenarios.sdks.stage import SDK_WARNINGS
from tests.scenarios.sdks.table import SDKS
from tests.support.relay import Running, running_relay

pytestmark = [pytest.mark.asyncio(loop_scope="module"), *SDK_WARNINGS]

BY_NAME = {sdk.name: sdk for sdk in SDKS}
OPENAI, OPENAI_ASYNC = BY_NAME["openai chat"], BY_NAME["openai chat, async stream"]
ANTHROPIC = BY_NAME["anthropic messages"]
ANTHROPIC_STREAM = BY_NAME["anthropic messages, stream"]
GOOGLE, GOOGLE_ASYNC = BY_NAME["google-genai generate"], BY_NAME["google-genai async stream"]


@dataclass(frozen=True)
class Case:
    """What goes wrong: the base behind `/proxy`, whose token, what each SDK raises, our words."""

    base: str
    caller: str
    status: int
    openai: type[openai.APIStatusError]
    anthropic: type[anthropic.APIStatusError]
    google: type[google.APIError]
    words: str


CASES = {
    "400": Case(
        "/{service}/cache=soon/-{base}",
        "good",
        400,
        openai.BadRequestError,
        anthropic.BadRequestError,
        google.ClientError,
        "cache",
    ),
    "401": Case(
        "/{service}{base}",
        "nobody",
        401,
        openai.AuthenticationError,
        anthropic.AuthenticationError,
        google.ClientError,
        "platform token",
    ),
    "403 key_missing": Case(
        "/{service}{base}",
        "empty",
        403,
        openai.PermissionDeniedError,
        anthropic.PermissionDeniedError,
        google.ClientError,
        "keyrelay key add",
    ),
    "404": Case(
        "/no-such-service{base}",
        "good",
        404,
        openai.NotFoundError,
        anthropic.NotFoundError,
        google.ClientError,
        "no known service",
    ),
    "502": Case(
        "/{service}{base}",
        "good",
        502,
        openai.InternalServerError,
        anthropic.InternalServerError,
        google.ServerError,
        "refused",
    ),
}


@dataclass(frozen=True)
class Place:
    relay: Running
    tokens: dict[str, str]

    def door(self, sdk: Sdk, case: Case) -> Door:
        base = case.base.format(service=sdk.service, base=sdk.base)
        return Door(f"{self.relay.url}/proxy{base}", self.tokens[case.caller])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        origin = {"origin": f"http://127.0.0.1:{unheard.getsockname()[1]}"}
        services = {sdk.service: origin for sdk in (OPENAI, ANTHROPIC, GOOGLE)}
        data = tmp_path_factory.mktemp("errors") / "data"
        async with running_relay(data, services) as relay:
            for service in services:
                await relay.add_key(service, key="sk-the-providers-own-key")
            empty = await relay.issue("empty", tenant="empty")
            nobody = relay.token[:-8] + "AAAAAAAA"
            yield Place(relay, {"good": relay.token, "empty": empty, "nobody": nobody})


each_case = pytest.mark.parametrize("case", [pytest.param(CASES[name], id=name) for name in CASES])


@each_case
@pytest.mark.parametrize("sdk", [OPENAI, OPENAI_ASYNC], ids=["sync", "async stream"])
async def test_openai_raises_its_own(place: Place, sdk: Sdk, case: Case) -> None:
    """`message` of the member `error`, and the codes beside it (contract section 7)."""
    with pytest.raises(case.openai, match=case.words) as raised:
        await sdk.use(place.door(sdk, case))
    assert raised.value.status_code == case.status
    assert raised.value.code and raised.value.type and raised.value.request_id


@each_case
@pytest.mark.parametrize("sdk", [ANTHROPIC, ANTHROPIC_STREAM], ids=["sync", "stream"])
async def test_anthropic_raises_its_own(place: Place, sdk: Sdk, case: Case) -> None:
    """The sentence stands in what it prints."""
    with pytest.raises(case.anthropic, match=case.words) as raised:
        await sdk.use(place.door(sdk, case))
    assert raised.value.status_code == case.status


@each_case
@pytest.mark.parametrize("sdk", [GOOGLE, GOOGLE_ASYNC], ids=["sync", "async stream"])
async def test_google_raises_its_own(place: Place, sdk: Sdk, case: Case) -> None:
    """`code` is the status, `message` our sentence."""
    with pytest.raises(case.google, match=case.words) as raised:
        await sdk.use(place.door(sdk, case))
    assert raised.value.code == case.status
    assert raised.value.message and case.words in raised.value.message


async def test_an_sdk_does_not_retry_what_cannot_help(place: Place) -> None:
    """OpenAI's client retries on 409, 429 and 5xx unless `x-should-retry` says no."""
    answers: list[str | None] = []

    async def note(response: Any) -> None:
        answers.append(response.headers.get("x-should-retry"))

    http = openai.DefaultAsyncHttpxClient(event_hooks={"response": [note]})
    base = f"{place.relay.url}/proxy/https/unknown.example.com/v1"
    made = openai.AsyncOpenAI(base_url=base, api_key=place.relay.token, http_client=http)
    async with made as client:
        with pytest.raises(openai.PermissionDeniedError):
            await client.models.list()
    assert answers == ["false"]
