"""SDKs follow redirects: through us to the provider's own places, and to no other place at all."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.scenarios.sdks.compare import holds, slots
from tests.scenarios.sdks.forms import service_path
from tests.scenarios.sdks.row import Sdk
from tests.scenarios.sdks.stage import SDK_WARNINGS, Stage, stage
from tests.scenarios.sdks.table import SDKS
from tests.support.origin import Origin, reply

pytestmark = [pytest.mark.asyncio(loop_scope="module"), *SDK_WARNINGS]

# One blocking and one asynchronous row of each SDK.
ROWS = {
    (sdk.distribution, inspect.iscoroutinefunction(sdk.call)): sdk
    for sdk in SDKS
    if sdk.drops != "path"
}
EACH = [pytest.param(sdk, id=sdk.name) for sdk in ROWS.values()]
FOLLOWS = [pytest.param(sdk, id=sdk.name) for sdk in ROWS.values() if sdk.follows]
STAYS = [pytest.param(sdk, id=sdk.name) for sdk in ROWS.values() if not sdk.follows]


@dataclass(frozen=True)
class Two:
    """The stage, and another origin that no SDK may ever reach."""

    on: Stage
    elsewhere: Origin


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Two]:
    data = tmp_path_factory.mktemp("redirects") / "data"
    async with Origin() as elsewhere, stage(data, SDKS) as on:
        yield Two(on, elsewhere)


@pytest.mark.parametrize("sdk", FOLLOWS)
async def test_a_place_of_the_provider_is_reached_through_us(two: Two, sdk: Sdk) -> None:
    """307 to another path: the same key there, and no trace of the token."""
    origin = two.on.origins[sdk.service]
    before = len(origin.requests)
    origin.answer_with(reply(307, [("Location", "/moved/here?a=1")]), sdk.answer)
    result = await sdk.use(service_path(sdk, two.on.place(sdk)))
    first, moved, *_ = origin.requests[before:]
    assert result == sdk.result
    assert (moved.path, moved.method, moved.body) == ("/moved/here", first.method, first.body)
    assert slots(moved, sdk.key) == slots(first, sdk.key) != []
    assert not holds(first, two.on.relay.token) and not holds(moved, two.on.relay.token)


@pytest.mark.parametrize("sdk", STAYS)
async def test_some_follow_none(two: Two, sdk: Sdk) -> None:
    """They do with their provider too; what is measured here is that they are the ones listed."""
    origin = two.on.origins[sdk.service]
    before = len(origin.requests)
    origin.answer_with(reply(307, [("Location", "/moved/here?a=1")]), sdk.answer)
    with pytest.raises(Exception):  # noqa: B017  # each has its own
        await sdk.use(service_path(sdk, two.on.place(sdk)))
    assert len(origin.requests) - before == 1


@pytest.mark.parametrize("sdk", EACH)
async def test_no_sdk_is_led_elsewhere(two: Two, sdk: Sdk) -> None:
    """A redirect to another origin is a 502 of ours; the SDK fails, and its key goes nowhere."""
    origin = two.on.origins[sdk.service]
    before = len(origin.requests)
    origin.answer_with(reply(307, [("Location", two.elsewhere.url + "/steal")]))
    with pytest.raises(Exception, match=r"redirects to|502"):
        await sdk.use(service_path(sdk, two.on.place(sdk)))
    assert origin.requests[before:]
    assert two.elsewhere.requests == []
