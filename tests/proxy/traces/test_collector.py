"""What a collector's answers mean, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from proxy.destinations import parse_destination
from proxy.traces.collector import OtlpCollector
from proxy.traces.sending import Fate
from proxy.upstream.transport import trust
from tests.support.origin import Exchange, Origin, reply


@contextlib.contextmanager
def collector(origin: Origin, authority: Path | None = None) -> Iterator[OtlpCollector]:
    endpoint = parse_destination(f"{origin.url}/v1/traces?own=1")
    with contextlib.closing(OtlpCollector(endpoint, lambda: trust(authority))) as found:
        yield found


async def take(one: OtlpCollector) -> tuple[Fate, str]:
    return await asyncio.to_thread(one.take, b"octets")


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        (200, Fate.TAKEN),
        (202, Fate.TAKEN),
        (301, Fate.REFUSED),
        (400, Fate.REFUSED),
        (401, Fate.REFUSED),
        (429, Fate.LATER),
        (500, Fate.REFUSED),
        (503, Fate.LATER),
    ],
)
async def test_the_status_says_what_became_of_it(status: int, fate: Fate) -> None:
    """OTLP: some answers are for later, the others for good; no redirect is followed."""
    async with Origin(reply(status, [("Location", "/elsewhere")], b"no")) as origin:
        with collector(origin) as one:
            assert await take(one) == (fate, "" if fate is Fate.TAKEN else f"it answers {status}")
    [sent] = origin.requests
    assert (sent.method, sent.target, sent.body) == ("POST", "/v1/traces?own=1", b"octets")
    assert sent.header("content-type") == "application/x-protobuf"


async def test_one_connection_is_used_again_and_a_dead_one_made_anew() -> None:
    """Once more at once, where it was open for long."""
    closing = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.reply(200)
        if len(origin.requests) == 2:
            await exchange.close()
            closing.set()

    async with Origin(answer) as origin:
        with collector(origin) as one:
            fates = [await take(one), await take(one)]
            await asyncio.wait_for(closing.wait(), 20)
            fates.append(await take(one))
    assert [fate for fate, _ in fates] == [Fate.TAKEN] * 3
    assert [sent.connection for sent in origin.requests] == [1, 1, 2]


async def test_what_is_no_http_is_for_later() -> None:
    """Whatever listens there."""
    async with Origin(b"garbage\r\n\r\n") as origin:
        with collector(origin) as one:
            assert await take(one) == (Fate.LATER, "BadStatusLine")


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to it is in the configuration alone."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with Origin() as origin:
        with collector(origin) as one:
            assert await take(one) == (Fate.TAKEN, "")


async def test_its_certificate_is_judged_like_an_upstreams(tmp_path: Path) -> None:
    """By the public authorities, and the one of server.upstream_ca."""
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.cert_pem.bytes())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with Origin(ssl_context=context) as origin:
        with collector(origin, file) as one:
            assert await take(one) == (Fate.TAKEN, "")
        with collector(origin) as one:
            assert await take(one) == (Fate.LATER, "SSLCertVerificationError")
