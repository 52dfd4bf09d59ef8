"""JavaScript's fetch and the npm SDKs of OpenAI and Anthropic, through keyrelay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from tests.scenarios.sdks.forms import FORMS, Form, offered, service_path
from tests.scenarios.sdks.npm_rows import NODE, NPM, NpmError
from tests.scenarios.sdks.row import Sdk
from tests.scenarios.sdks.stage import Stage, stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

CELLS = [
    pytest.param(sdk, form, id=f"{sdk.name} {name}")
    for sdk in NPM
    for name, form in FORMS.items()
    if offered(sdk, form)
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def on(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with NODE, stage(tmp_path_factory.mktemp("npm") / "data", NPM) as ready:
        yield ready


@pytest.mark.parametrize(("sdk", "form"), CELLS)
async def test_the_provider_sees_the_same_call(on: Stage, sdk: Sdk, form: Form) -> None:
    """In every form of a call."""
    await on.judge(sdk, form)


@pytest.mark.parametrize("sdk", [pytest.param(sdk, id=sdk.name) for sdk in NPM])
async def test_the_second_call_is_a_hit(on: Stage, sdk: Sdk) -> None:
    """The cache is steered from JavaScript as from elsewhere."""
    await on.judge_hit(sdk)


REFUSALS = {
    "401": (401, "AuthenticationError", "platform token"),
    "403 key_missing": (403, "PermissionDeniedError", "keyrelay key add"),
}


@pytest.mark.parametrize("sdk", [pytest.param(sdk, id=sdk.name) for sdk in NPM])
@pytest.mark.parametrize("case", [pytest.param(REFUSALS[name], id=name) for name in REFUSALS])
async def test_each_throws_its_own(on: Stage, sdk: Sdk, case: tuple[int, str, str]) -> None:
    """The SDKs' own classes, with our sentence; `fetch` shows it to whoever reads the body."""
    status, kind, words = case
    tokens = {401: on.relay.token[:-8] + "AAAAAAAA", 403: await on.stranger()}
    door = replace(service_path(sdk, on.place(sdk)), key=tokens[status])
    with pytest.raises(NpmError) as raised:
        await sdk.use(door)
    [error] = raised.value.args
    assert error["status"] == status
    assert words in error["message"]
    assert error["name"] == ("Error" if sdk.name == "fetch" else kind)
