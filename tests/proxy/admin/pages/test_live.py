"""The live tail over real sockets: for who is signed in, of one tenant, not for too many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from proxy.admin.live import OF_ONE, WATCHERS, LiveCalls, Wish
from proxy.admin.session import _csrf
from proxy.errors import Overloaded
from tests.proxy.admin.conftest import FORM, OWN, bearer
from tests.support.caller import Answered, Caller, call
from tests.support.origin import Origin, reply
from tests.support.relay import Running, running_relay


class Desk:
    """A server whose calls go to a provider that says fine."""

    def __init__(self, up: Running) -> None:
        self.up = up

    async def sign_in(self, tenant: str = "default", name: str = "ada") -> tuple[str, str]:
        token = await self.up.issue(name, tenant=tenant, role="admin")
        body = urlencode({"token": token}).encode()
        signed = await call(self.up.url, "POST", "/admin/login", FORM, OWN, body=body)
        return ("Cookie", (signed.header("set-cookie") or "").partition(";")[0])

    async def call(self) -> None:
        asked = await call(self.up.url, "GET", "/proxy/openai/v1", bearer(self.up.token))
        assert asked.status == 200

    @asynccontextmanager
    async def watching(self, cookie: tuple[str, str]) -> AsyncIterator[tuple[Caller, Answered]]:
        """A tail, and the header of its answer."""
        caller = await Caller.connect(self.up.url)
        await caller.request("GET", "/admin/calls/stream", cookie)
        try:
            yield caller, await caller.head()
        finally:
            await caller.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with (
        Origin(reply(200, [], b"fine")) as origin,
        running_relay(tmp_path / "data", {"openai": {"origin": origin.url}}) as up,
    ):
        await up.add_key("openai", key="sk-test-0123456789abcdef")
        yield Desk(up)


@pytest.mark.parametrize("how", ["revoked", "signed out"])
async def test_a_tail_ends_with_its_session(desk: Desk, how: str) -> None:
    """Not one call more is told of."""
    cookie = await desk.sign_in()
    async with asyncio.timeout(30), desk.watching(cookie) as (caller, head):
        assert (head.status, await caller.chunk()) == (200, b"retry: 3000\n\n")
        await desk.call()
        assert b"event: calls" in await caller.chunk()
        if how == "revoked":
            await desk.up.vault.revoke_token("default", "ada")
        else:
            body = urlencode({"csrf": _csrf(cookie[1].partition("=")[2])}).encode()
            out = await call(desk.up.url, "POST", "/admin/logout", FORM, OWN, cookie, body=body)
            assert out.status == 303
        await desk.call()
        assert await caller.chunk() == b"event: over\ndata:\n\n"
        assert await caller.chunk() == b""


async def test_one_more_than_may_watch_is_told_so(desk: Desk) -> None:
    """503 at once, not an answer that breaks; another tenant's admin still may."""
    cookie = await desk.sign_in()
    other = await desk.sign_in("other", "bob")
    async with asyncio.timeout(30), AsyncExitStack() as stack:
        for _ in range(OF_ONE):
            caller, head = await stack.enter_async_context(desk.watching(cookie))
            assert (head.status, await caller.chunk()) == (200, b"retry: 3000\n\n")
        _, head = await stack.enter_async_context(desk.watching(cookie))
        assert (head.status, head.header("retry-after")) == (503, "60")
        _, head = await stack.enter_async_context(desk.watching(other))
        assert head.status == 200


def test_in_all_there_are_so_many() -> None:
    """However many tenants there are."""
    live = LiveCalls()
    watchers = [live.watch(str(tenant), Wish()) for tenant in range(WATCHERS)]
    with pytest.raises(Overloaded):
        live.watch("one more", Wish())
    live.leave("0", watchers[0])
    live.watch("one more", Wish())
