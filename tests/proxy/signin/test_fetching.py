"""Where an issuer's keys come from: real sockets, through the guard, within bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.certificate import load_context
from proxy.config.signin import IssuerEntry
from proxy.network import Dialler
from proxy.signin import fetching
from proxy.signin.fetching import DISCOVERY, Failed, Fetcher
from proxy.upstream.leaves import TRANSPORTS
from tests.support.certificates import write_pair
from tests.support.clock import FakeClock
from tests.support.issuer import Issuer, Signer, key_set
from tests.support.origin import Exchange, Origin, head, json_reply, reply
from tests.support.resolver import FakeResolver


def entry(issuer: str, jwks: str | None = None) -> IssuerEntry:
    said = {"name": "login", "issuer": issuer, "audience": "keyrelay", "jwks": jwks}
    return IssuerEntry.model_validate(said)


@asynccontextmanager
async def fetcher(
    names: dict[str, str] | None = None, ca: Path | None = None, kind: str = "wire"
) -> AsyncIterator[Fetcher]:
    found = {name: [address] for name, address in (names or {}).items()}
    transport = TRANSPORTS[kind](Dialler(FakeResolver(found)), FakeClock(), upstream_ca=ca)
    try:
        yield Fetcher(transport)
    finally:
        await transport.aclose()


@pytest.mark.parametrize("kind", ["wire", "httpx"])
async def test_keys_come_from_where_the_configuration_says(kind: str) -> None:
    """Without anything that tells of callers."""
    async with Issuer() as issuer, fetcher(kind=kind) as one:
        octets = await one.keys(entry(issuer.url, f"{issuer.url}/keys.json"))
        assert json.loads(octets) == key_set([Signer()])
        assert issuer.asked == ["/keys.json"]
        names = {name.lower() for name, _ in issuer.origin.last.headers}
        assert names == {"host", "accept", "user-agent"}


async def test_or_from_where_the_issuer_says() -> None:
    """OpenID Connect Discovery section 4."""
    async with Issuer() as issuer, fetcher() as one:
        assert await one.keys(entry(issuer.url))
        assert issuer.asked == [DISCOVERY, "/keys.json"]


@pytest.mark.parametrize(
    "extra",
    [
        {"issuer": "https://other.example.com"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": ["https://login.example.com/keys"]},
        {"jwks_uri": "http://login.example.com/keys"},
        {"jwks_uri": "http://169.254.169.254/latest"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "http://127.0.0.1:1/keys.json"},
        {"jwks_uri": "https://10.0.0.1/keys.json"},
    ],
)
async def test_a_document_leads_nowhere_else(extra: dict[str, Any]) -> None:
    """It is the issuer's own, and what it names is no registration: no private address there."""
    async with Issuer(extra=extra) as issuer, fetcher() as one:
        with pytest.raises(Failed):
            await one.keys(entry(issuer.url))
        assert issuer.asked == [DISCOVERY]


async def test_a_name_may_lead_to_what_was_registered_and_never_to_metadata() -> None:
    """The judgement of calls: the admin wrote it, so it may be private; link-local never."""
    names = {"login.example.com": "169.254.169.254", "keys.example.com": "203.0.113.9"}
    async with fetcher(names) as one:
        for name in names:
            with pytest.raises(Failed, match="address that calls may not reach"):
                await one.keys(entry("x", f"https://{name}/keys"))


async def test_tls_is_checked(tmp_path: Path) -> None:
    """Against the public authorities and upstream_ca."""
    pair = write_pair(tmp_path)
    async with Origin(json_reply(key_set([Signer()])), ssl_context=load_context(pair)) as origin:
        place = entry("x", f"{origin.url}/keys")
        async with fetcher() as one:
            with pytest.raises(Failed, match="TLS"):
                await one.keys(place)
        async with fetcher(ca=pair.chain) as one:
            assert await one.keys(place)


@pytest.mark.parametrize("status", [204, 301, 302, 307, 404, 500])
async def test_only_200_is_an_answer(status: int) -> None:
    """No redirect is followed."""
    there = [("Location", "/elsewhere")]
    async with Origin(reply(status, there)) as origin, fetcher() as one:
        with pytest.raises(Failed, match=f"status {status}"):
            await one.keys(entry("x", f"{origin.url}/keys"))
        assert len(origin.requests) == 1


async def test_an_endless_answer_is_cut() -> None:
    """At a mebibyte."""

    async def endless(exchange: Exchange) -> None:
        await exchange.start(200)
        while True:
            await exchange.chunk(bytes(65536))

    async with Origin(endless) as origin, fetcher() as one:
        with pytest.raises(Failed, match="larger"):
            await one.keys(entry("x", f"{origin.url}/keys"))


@pytest.mark.parametrize("begun", [b"", head(200, [("Content-Length", "50")]) + b'{"keys"'])
async def test_a_slow_answer_is_given_up(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it has one deadline."""
    hold = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await exchange.send(begun)
        await exchange.wait(hold)

    monkeypatch.setattr(fetching, "SECONDS", 0.05)
    async with Origin(slow) as origin, fetcher() as one:
        with pytest.raises(Failed, match="within"):
            await one.keys(entry("x", f"{origin.url}/keys"))
        hold.set()


async def test_a_document_that_is_no_json_is_refused() -> None:
    """As any answer that can't be read."""
    async with Origin(reply(body="<html>")) as origin, fetcher() as one:
        with pytest.raises(Failed, match="can't be read"):
            await one.keys(entry(origin.url))
