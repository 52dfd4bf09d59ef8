"""The example backends receive the key of each call and use it; they hold none and print none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.examples.doubles import ANSWER, COMPLETION, FOUND, MAPS_KEY, OPENAI_KEY, in_an_hour
from tests.support.examples import Backend, running_example
from tests.support.origin import Origin, json_reply
from tests.support.relay import Running, running_relay

pytestmark = pytest.mark.asyncio(loop_scope="module")
BACKENDS = ["fastapi_backend.py", "flask_backend.py"]
QUESTION = {"question": "What is a relay?"}


@dataclass(frozen=True)
class World:
    """An example that serves, and the providers that it calls."""

    openai: Origin
    maps: Origin
    backend: Backend


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BACKENDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Of either example; it has printed no key by its end."""
    async with Origin(COMPLETION) as openai, Origin(FOUND) as maps:
        places = {"OPENAI_BASE_URL": f"{openai.url}/v1", "MAPS_BASE_URL": maps.url}
        async with running_example(request.param, **places) as backend:
            yield World(openai, maps, backend)
        assert OPENAI_KEY not in backend.output
        assert MAPS_KEY not in backend.output


async def call(relay: Running, method: str, server: str, **more: str) -> httpx.Response:
    """One call through keyrelay with the platform token; `more`: further control parameters."""
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.request(
            method,
            f"{relay.url}/proxy",
            params={"server": server, **more},
            headers={"Authorization": f"Bearer {relay.token}"},
            json=QUESTION if method == "POST" else None,
        )


async def register(relay: Running, backend: Backend, maps: str = "google-maps") -> None:
    """The keys, and the two paths of the example that they may go to."""
    await relay.add_key("openai", key=OPENAI_KEY)
    await relay.add_key(maps, key=MAPS_KEY)
    await relay.add_backend("openai", f"{backend.url}/ask")
    await relay.add_backend(maps, f"{backend.url}/geocode")


async def test_backend_calls_openai_with_the_injected_key(tmp_path: Path, world: World) -> None:
    """Contract section 5: to a backend the key goes as the service's own header."""
    openai, backend = world.openai, world.backend
    async with running_relay(tmp_path / "data") as relay:
        await register(relay, backend)
        first = await call(relay, "POST", f"{backend.url}/ask", service="openai")
        assert (first.status_code, first.json()) == (200, {"answer": ANSWER})
        assert openai.last.target == "/v1/chat/completions"
        assert openai.last.all("authorization") == [f"Bearer {OPENAI_KEY}"]
        assert openai.last.json()["messages"][0]["content"] == QUESTION["question"]
        assert relay.token.encode() not in openai.last.raw


async def test_equal_calls_to_a_backend_cost_one(tmp_path: Path, world: World) -> None:
    """Contract section 6: with `cache=T` an equal call is answered from the cache."""
    openai, backend = world.openai, world.backend
    async with running_relay(tmp_path / "data") as relay:
        await register(relay, backend)
        before = len(openai.requests)
        answers = [
            await call(relay, "POST", f"{backend.url}/ask", service="openai", cache=in_an_hour())
            for _ in range(2)
        ]
        assert [one.json() for one in answers] == [{"answer": ANSWER}] * 2
        assert "hit" in answers[1].headers["cache-status"]
        assert len(openai.requests) == before + 1


@pytest.mark.parametrize("maps_service", ["google-maps", "googleapis"])
async def test_backend_turns_the_google_header_into_the_parameter(
    tmp_path: Path, world: World, maps_service: str
) -> None:
    """Contract section 5: Google's key reaches a backend as x-goog-api-key, even for maps."""
    maps, backend = world.maps, world.backend
    async with running_relay(tmp_path / "data") as relay:
        await register(relay, backend, maps_service)
        url = f"{backend.url}/geocode?address=Berlin Mitte"
        found = await call(relay, "GET", url, service=maps_service)
        assert found.status_code == 200, found.text
        assert found.json()["results"][0]["formatted_address"] == "Berlin, Germany"
        asked = httpx.URL(f"{maps.url}{maps.last.target}")
        assert asked.path == "/maps/api/geocode/json"
        assert dict(asked.params) == {"address": "Berlin Mitte", "key": MAPS_KEY}
        assert maps.last.header("x-goog-api-key") is None


async def test_backend_passes_on_the_providers_refusal(tmp_path: Path, world: World) -> None:
    """A caller sees the provider's status and words, not a 500 of the backend."""
    refusal = {"error": {"message": "no such model", "type": "invalid_request_error"}}
    backend = world.backend
    world.openai.answer_with(json_reply(refusal, 404))
    async with running_relay(tmp_path / "data") as relay:
        await register(relay, backend)
        answer = await call(relay, "POST", f"{backend.url}/ask", service="openai")
        assert answer.status_code == 404
        assert answer.json() == refusal
        assert "proxy-status" not in answer.headers
    world.openai.answer_with(COMPLETION)


async def test_backend_called_directly_has_no_key(world: World) -> None:
    """Nothing but keyrelay brings the key: without it the backend refuses."""
    backend = world.backend
    async with httpx.AsyncClient() as client:
        asked = await client.post(f"{backend.url}/ask", json=QUESTION)
        located = await client.get(f"{backend.url}/geocode?address=Berlin")
        assert (asked.status_code, located.status_code) == (401, 401)


async def test_nested_backend_calls_openai_through_keyrelay_with_its_key(tmp_path: Path) -> None:
    """Contract section 3: the key that we handed out is the backend's only credential."""
    async with Origin(COMPLETION) as openai:
        services = {"openai": {"origin": f"{openai.url}/v1"}}
        async with (
            running_relay(tmp_path / "data", services) as relay,
            running_example("nested_backend.py", KEYRELAY_URL=relay.url) as backend,
        ):
            await relay.add_key("openai", key=OPENAI_KEY)
            await relay.add_backend("openai", f"{backend.url}/ask")
            server = f"{backend.url}/ask?question=What is a relay?"
            answers = [await call(relay, "GET", server, service="openai") for _ in range(2)]
            assert [one.status_code for one in answers] == [200, 200], answers[0].text
            assert [one.json() for one in answers] == [{"answer": ANSWER}] * 2
            assert len(openai.requests) == 1, "the second answer came from the nested call's cache"
            assert openai.last.path.endswith("/chat/completions")
            assert openai.last.all("authorization") == [f"Bearer {OPENAI_KEY}"]
            assert relay.token.encode() not in openai.last.raw
    assert OPENAI_KEY not in backend.output


async def test_nested_backend_passes_on_what_keyrelay_says(tmp_path: Path) -> None:
    """`accept_handed_out: false` ends it: the backend's caller reads our sentence."""
    settings = "server: {accept_handed_out: false}\n"
    async with (
        running_relay(tmp_path / "data", None, settings) as relay,
        running_example("nested_backend.py", KEYRELAY_URL=relay.url) as backend,
    ):
        await relay.add_key("openai", key=OPENAI_KEY)
        await relay.add_backend("openai", f"{backend.url}/ask")
        answer = await call(relay, "GET", f"{backend.url}/ask?question=Why?", service="openai")
        assert answer.status_code == 401
        assert answer.json()["error"]["message"].startswith("Send a valid platform token")
