"""POST /tokens over real sockets: narrower tokens of minutes, for pages."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy.trail import Trail
from tests.support.clock import FakeClock
from tests.support.origin import Origin, json_reply
from tests.support.relay import Running, running_relay

PAGE = "https://app.example.com"
SETTINGS = f"server: {{cors_origins: ['{PAGE}'], short_lived_max: 30m}}\n"


@dataclass
class Shop:
    """A server with one service, and a client of it."""

    up: Running
    origin: Origin
    client: httpx.AsyncClient
    clock: FakeClock

    async def exchange(self, token: str | None = None, **asked: Any) -> httpx.Response:
        """A short-lived token, for everything where nothing is said."""
        bearer = {"Authorization": f"Bearer {token or self.up.token}", "Origin": PAGE}
        return await self.client.post(f"{self.up.url}/tokens", json=asked, headers=bearer)

    async def short(self, **asked: Any) -> str:
        """Its text."""
        answer = await self.exchange(**asked)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    async def call(
        self, token: str, path: str = "/v1/models", method: str = "GET", origin: str = PAGE
    ) -> httpx.Response:
        """A call as a page makes it."""
        bearer = {"Authorization": f"Bearer {token}", "Origin": origin}
        asked = {"server": f"{self.origin.url}{path}", "service": "openai"}
        url = f"{self.up.url}/proxy"
        return await self.client.request(method, url, params=asked, headers=bearer)


@contextlib.asynccontextmanager
async def shop(data: Path) -> AsyncIterator[Shop]:
    clock = FakeClock()
    async with (
        Origin(json_reply({"data": []})) as origin,
        running_relay(data, {"openai": {"origin": origin.url}}, SETTINGS, clock) as up,
        httpx.AsyncClient() as client,
    ):
        await up.add_key("openai", key="sk-canary-0123456789abcdefghij")
        yield Shop(up, origin, client, clock)


async def test_a_token_of_minutes_calls_and_is_over(tmp_path: Path) -> None:
    """What was asked for, as JSON, not to be kept; ten minutes where nothing is said."""
    async with shop(tmp_path / "data") as one:
        answer = await one.exchange(services=["openai"], methods=["get"], origins=[PAGE])
        told = answer.json()
        token = told.pop("token")
        assert told.pop("expires") == "2027-01-15T08:10:00Z"
        assert told == {
            "seconds": 600,
            "services": ["openai"],
            "hosts": [],
            "paths": [],
            "methods": ["GET"],
            "origins": [PAGE],
            "calls": None,
        }
        assert answer.headers["cache-control"] == "no-store"
        parts: Any = one.up.relay._parts
        await next(part for part in parts.lasting if isinstance(part, Trail)).flush()
        [entry] = await one.up.vault.audit(1)
        assert (entry.actor, entry.action) == ("token everything", "token short-lived")
        assert entry.subject == "openai"
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert (await one.call(token)).status_code == 200
        one.clock.advance(600)
        assert (await one.call(token)).status_code == 401


async def test_it_goes_no_further_than_it_was_made_for(tmp_path: Path) -> None:
    """Host, path, method, origin, service: 403."""
    async with shop(tmp_path / "data") as one:
        bounds = {"hosts": ["127.0.0.1"], "paths": ["/v1"], "methods": ["GET"], "origins": [PAGE]}
        token = await one.short(**bounds)
        assert (await one.call(token)).status_code == 200
        assert (await one.call(token, "/v2")).status_code == 403
        assert (await one.call(token, method="POST")).status_code == 403
        assert (await one.call(token, origin="https://evil.example")).status_code == 403
        assert (await one.call(await one.short(hosts=["a.example"]))).status_code == 403
        assert (await one.call(await one.short(services=["cohere"]))).status_code == 403
        assert len(one.origin.requests) == 1


async def test_it_makes_no_other_and_opens_no_page(tmp_path: Path) -> None:
    """Neither longer nor wider, and nothing but calls: also that of an admin."""
    async with shop(tmp_path / "data") as one:
        admin = await one.up.issue("boss", role="admin")
        token = (await one.exchange(admin)).json()["token"]
        bearer = {"Authorization": f"Bearer {token}"}
        assert (await one.call(token)).status_code == 200
        assert (await one.exchange(token)).status_code == 403
        for page in ("/usage", "/health", "/metrics", "/admin/api/v1/keys"):
            answer = await one.client.get(one.up.url + page, headers=bearer)
            assert answer.status_code == 403, page
        form = {"token": token}
        signed = await one.client.post(
            f"{one.up.url}/admin/login", data=form, headers={"Origin": one.up.url}
        )
        assert "set-cookie" not in signed.headers


async def test_so_many_calls_in_all(tmp_path: Path) -> None:
    """Hits count too; the answers say how many are left."""
    async with shop(tmp_path / "data") as one:
        token = await one.short(calls=2)
        assert '"short-lived";r=1' in (await one.call(token)).headers["ratelimit"]
        assert (await one.call(token)).headers["x-ratelimit-remaining"] == "0"
        refused = await one.call(token)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "calls_spent")
        assert refused.headers["access-control-allow-origin"] == PAGE
        assert (await one.call(one.up.token)).status_code == 200


async def test_its_calls_are_its_parents(tmp_path: Path) -> None:
    """Limits of the parent are shared, and its end is the end."""
    async with shop(tmp_path / "data") as one:
        parent = await one.up.issue("ann", limits=("2/day",))
        token = (await one.exchange(parent)).json()["token"]
        assert (await one.call(token)).status_code == 200
        assert (await one.call(parent)).status_code == 200
        assert (await one.call(token)).json()["error"]["code"] == "rate_limited"
        await one.up.vault.revoke_token("default", "ann")
        assert (await one.call(token)).status_code == 401


async def test_narrowing_the_parent_narrows_it(tmp_path: Path) -> None:
    """Also where its grant was remembered."""
    async with shop(tmp_path / "data") as one:
        token = await one.short()
        assert (await one.call(token)).status_code == 200
        await one.up.vault.change_token("default", "everything", {"paths": ("/v2",)})
        assert (await one.call(token)).status_code == 403
        assert (await one.call(token, "/v2")).status_code == 200


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"seconds": 1801}, 422),
        ({"seconds": 0}, 422),
        ({"seconds": "600"}, 422),
        ({"hosts": ["a/b"]}, 422),
        ({"origins": ["*"]}, 422),
        ({"calls": 0}, 422),
        ({"services": []}, 422),
        ({"tenant": "other"}, 422),
        ({"role": "admin"}, 422),
        ({"services": ["no-such-service"]}, 404),
        ({"services": ["cohere"]}, 403),
        ({"paths": ["/"]}, 403),
        ({"hosts": ["b.example"]}, 403),
        ({"paths": ["/v1/chat"], "services": ["openai"], "hosts": ["127.0.0.1"]}, 201),
    ],
)
async def test_what_is_wider_or_no_bound_is_refused(
    tmp_path: Path, asked: dict[str, Any], status: int
) -> None:
    """With a problem that a page can read, and no token."""
    async with shop(tmp_path / "data") as one:
        text = await one.up.issue("ann", services=frozenset({"openai"}))
        bounds = {"hosts": ("127.0.0.1",), "paths": ("/v1",)}
        await one.up.vault.change_token("default", "ann", bounds)  # type: ignore[arg-type]
        answer = await one.exchange(text, **asked)
        assert answer.status_code == status, answer.text
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert ("token" in answer.json()) is (status == 201)


async def test_nobody_gets_one_without_a_good_token(tmp_path: Path) -> None:
    """401 for none, 403 for one that may not call or not from here."""
    async with shop(tmp_path / "data") as one:
        assert (await one.exchange("kr_nobody")).status_code == 401
        reader = await one.up.issue("reader", role="read")
        assert (await one.exchange(reader)).status_code == 403
        bound = await one.up.issue("bound")
        await one.up.vault.change_token("default", "bound", {"origins": ("https://b.example",)})
        assert (await one.exchange(bound)).status_code == 403


async def test_a_page_asks_first(tmp_path: Path) -> None:
    """The preflight, for listed origins alone; nothing else is served here."""
    async with shop(tmp_path / "data") as one:
        asked = {
            "Origin": PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        url = f"{one.up.url}/tokens"
        leave = await one.client.options(url, headers=asked)
        assert leave.status_code == 204
        assert leave.headers["access-control-allow-origin"] == PAGE
        assert leave.headers["access-control-allow-headers"] == "authorization,content-type"
        other = await one.client.options(url, headers={**asked, "Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
        assert (await one.client.get(url)).status_code == 405
