"""The address that the page tells people to call."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlencode

import pytest

from proxy.admin.session import _csrf
from tests.proxy.admin.conftest import FORM
from tests.support.caller import call
from tests.support.relay import running_relay

PUBLIC = "https://relay.example.com"


@pytest.mark.parametrize(
    ("settings", "base"),
    [(f"server: {{public_url: '{PUBLIC}'}}\n", PUBLIC), ("{}\n", "http://relay.test")],
)
async def test_a_new_token_is_shown_with_the_address_to_call(
    tmp_path: Path, settings: str, base: str
) -> None:
    """`server.public_url` where it is set: behind TLS a token must not be sent in the clear."""
    async with running_relay(tmp_path / "data", settings=settings) as up:
        body = urlencode({"token": await up.issue("ada", role="admin")}).encode()
        own = ("Origin", base)
        signed = await call(up.url, "POST", "/admin/login", FORM, own, body=body)
        cookie = ("Cookie", (signed.header("set-cookie") or "").partition(";")[0])
        form = {"csrf": _csrf(cookie[1].partition("=")[2]), "name": "new", "role": "call"}
        body = urlencode(form).encode()
        issued = await call(up.url, "POST", "/admin/tokens/issue", FORM, own, cookie, body=body)
    assert issued.status == 200
    shown = set(re.findall(r"base_url = (\S+)/proxy/openai", issued.body.decode()))
    assert shown == {base}
