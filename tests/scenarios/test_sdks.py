"""Real SDKs, once directly and once through keyrelay: their providers can't tell the difference."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anthropic
import httpx
import pytest
import pytest_asyncio

from tests.scenarios.sdk_table import document, expected
from tests.scenarios.sdks.compare import holds, slots
from tests.scenarios.sdks.forms import FORMS, Form, offered, survives
from tests.scenarios.sdks.row import Sdk
from tests.scenarios.sdks.stage import SDK_WARNINGS, Stage, stage
from tests.scenarios.sdks.table import SDKS
from tests.support.origin import json_reply

pytestmark = [pytest.mark.asyncio(loop_scope="module"), *SDK_WARNINGS]

CELLS = [
    pytest.param(sdk, form, id=f"{sdk.name} {name}")
    for sdk in SDKS
    for name, form in FORMS.items()
    if offered(sdk, form)
]
ANTHROPIC = next(sdk for sdk in SDKS if sdk.service == "anthropic")
CACHED = [pytest.param(sdk, id=sdk.name) for sdk in SDKS if sdk.drops != "path"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def on(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with stage(tmp_path_factory.mktemp("sdks") / "data", SDKS) as ready:
        yield ready


async def test_the_page_is_current() -> None:
    """`python -m tests.scenarios.sdk_table > docs/sdks.md` measures what the tests here hold."""
    page = Path(__file__).parents[2] / "docs" / "sdks.md"
    assert page.read_text() == document(expected)


@pytest.mark.parametrize(("sdk", "form"), CELLS)
async def test_the_provider_sees_the_same_call(on: Stage, sdk: Sdk, form: Form) -> None:
    """In every form; where a client drops what keyrelay must know, it is told so."""
    if survives(sdk, form):
        await on.judge(sdk, form)
    else:
        await on.judge_refusal(sdk, form)


@pytest.mark.parametrize("sdk", CACHED)
async def test_the_second_call_is_a_hit(on: Stage, sdk: Sdk) -> None:
    """What an SDK makes new in every call (ids, boundaries) is no part of the cache's key."""
    await on.judge_hit(sdk)


async def test_an_older_version_keeps_its_slot(on: Stage) -> None:
    """Anthropic's `x-api-key`, wherever the token stood, until the caller's version is later."""
    origin = on.origins["anthropic"]
    origin.answer_with(json_reply({}))
    for said in ({}, {"anthropic-version": "2023-06-01"}):
        for slot in ({"x-api-key": on.relay.token}, {"Authorization": f"Bearer {on.relay.token}"}):
            async with httpx.AsyncClient(base_url=on.relay.url, headers={**said, **slot}) as client:
                await client.get("/proxy/anthropic/v1/models")
            assert slots(origin.last, ANTHROPIC.key) == [("x-api-key", "{key}")]
            assert origin.last.all("anthropic-version") == ["2023-06-01"]


async def test_an_sdk_may_bring_its_own_key(on: Stage) -> None:
    """The token in `X-Relay-Token`, no key in the vault: the SDK's own goes on, untouched."""
    origin = on.origins["anthropic"]
    origin.answer_with(ANTHROPIC.answer)
    token = await on.stranger()
    made = anthropic.AsyncAnthropic(
        base_url=f"{on.relay.url}/proxy/anthropic",
        api_key="sk-their-own",
        default_headers={"X-Relay-Token": token},
    )
    async with made as client:
        await client.messages.create(
            model="claude-opus-5-5", max_tokens=1, messages=[{"role": "user", "content": "hi"}]
        )
    assert slots(origin.last, "sk-their-own") == [("authorization", "Bearer {key}")]
    assert not holds(origin.last, token)
