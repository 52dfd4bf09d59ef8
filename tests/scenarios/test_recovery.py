"""What nobody expected is a clean 500 with the call's id, over real sockets."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NoReturn

import pytest

from proxy.limits.limits import Limits
from tests.support.caller import call
from tests.support.origin import Origin, reply
from tests.support.relay import running_relay

KEY = "sk-canary-0123456789abcdefghij"


def fail(*_: Any) -> NoReturn:
    raise RuntimeError("CANARY")


@pytest.mark.parametrize("place", ["proxy.asgi.parse_directions", "proxy.cache.cache.decide"])
async def test_an_unexpected_error_is_a_clean_500(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
) -> None:
    """With the same id in answer, document and log, and how the limits stand; no value shows."""
    async with Origin(reply(200)) as origin, running_relay(tmp_path / "data") as up:
        await up.add_key("openai", key=KEY)
        await up.add_backend("openai", origin.url)
        bearer = ("Authorization", f"Bearer {await up.issue('ann', limits=('5/minute',))}")
        target = f"/proxy?server={origin.url}/v1/x&service=openai"
        monkeypatch.setattr(place, fail)
        answer = await call(up.url, "GET", target, bearer, ("X-Request-ID", "call-1"))
        assert (answer.status, answer.json()["error"]["code"]) == (500, "internal_error")
        assert answer.header("x-relay-request-id") == answer.header("x-request-id") == "call-1"
        assert answer.json()["request_id"] == "call-1"
        assert "call-1" in answer.json()["detail"]
        told = [one for one in caplog.records if one.levelno == logging.ERROR]
        assert [vars(one)["id"] for one in told] == ["call-1"]
        assert "RuntimeError" in told[0].getMessage()
        assert "fail" in str(vars(told[0])["at"])
        monkeypatch.undo()
        assert (await call(up.url, "GET", target, bearer)).status == 200
    assert b"CANARY" not in answer.body
    assert "CANARY" not in caplog.text
    assert (answer.header("ratelimit") is not None) == (place != "proxy.asgi.parse_directions")


async def test_limits_that_fail_leave_a_clean_500_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How they stand can't be said then."""
    async with running_relay(tmp_path / "data") as up:
        await up.add_key("openai", key=KEY)
        bearer = ("Authorization", f"Bearer {await up.issue('ann', limits=('5/minute',))}")
        monkeypatch.setattr(Limits, "lines", fail)
        monkeypatch.setattr("proxy.cache.cache.decide", fail)
        answer = await call(up.url, "GET", "/proxy/openai/v1/models", bearer)
        assert (answer.status, answer.json()["error"]["code"]) == (500, "internal_error")
        assert answer.header("ratelimit") is None
