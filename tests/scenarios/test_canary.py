"""Marked keys and tokens leave the process only where they should, and lie nowhere in the clear."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote

from tests.support.caller import Answered, Caller, call
from tests.support.canaries import LEDGER, files, holds
from tests.support.collector import TraceCollector
from tests.support.issuer import Issuer
from tests.support.origin import Exchange, Origin, head, reply
from tests.support.process import Ended, keyrelay, served
from tests.support.relay import running_relay

KEY = "sk-CANARY/0123456789+abcdefghijklmnop"
SECOND = "sk-CANARY-rotated-0123456789-abcdefgh"
QUERY = "CANARY-of-a-caller-0123456789"
FOREVER = "&cache=4102444800"


async def echo(exchange: Exchange) -> None:
    """A provider that tells everything it was sent."""
    said = repr(exchange.request.headers).encode()
    fields = [("X-Echo", exchange.request.header("authorization") or ""), ("X-Other", "1")]
    await exchange.reply(200, fields, said)


async def administer(url: str, token: str, answers: list[Answered]) -> None:
    """Keys and tokens in every place of the admin API and of its door, right and wrong."""
    own = ("Origin", "http://relay.test")
    form = ("Content-Type", "application/x-www-form-urlencoded")
    bearer = ("Authorization", f"Bearer {token}")

    async def api(method: str, path: str, body: object = None) -> None:
        said = (bearer, ("Content-Type", "application/json"))
        octets = None if body is None else json.dumps(body).encode()
        answers.append(await call(url, method, f"/admin/api/v1{path}", *said, body=octets))

    async def sign(path: str, text: str, *more: tuple[str, str]) -> None:
        body = f"token={quote(text, safe='')}&csrf={quote(text, safe='')}".encode()
        answers.append(await call(url, "POST", path, own, form, *more, body=body))

    await api("POST", "/keys", {"service": "openai", "alias": "more", "value": KEY})
    await api("POST", "/keys/openai/more/rotate", {"value": SECOND})
    for wrong in (
        {"service": "openai", "value": KEY + "\n"},
        {"service": "openai", "values": {KEY: SECOND}},
        {"service": KEY, "value": 5, SECOND: 1},
        {"service": "openai", "alias": SECOND, "value": KEY, "hosts": [KEY]},
        [KEY],
        KEY,
    ):
        await api("POST", "/keys", wrong)
    await api("POST", "/tokens", {"name": token})
    await api("POST", "/tokens", {"name": "x", "keys": {KEY: token}, "expires": KEY})
    await api("POST", "/backends", {"service": "openai", "url": f"https://x:{KEY}@x/"})
    await api("DELETE", f"/tokens/{token}")
    await api("DELETE", f"/keys/openai/{quote(KEY, safe='')}")
    for path in ("/keys", "/tokens", "/audit", f"/keys?{token}=1", f"/keys?after={token}"):
        await api("GET", path)
    for text in (token, token[:-1], KEY):
        await sign("/admin/login", text)
        await sign("/admin/logout", text, ("Cookie", f"__Host-keyrelay={text}"))
    await sign("/admin/login", "", ("Origin", f"http://{token}"), bearer)


async def come_for_minutes(url: str, token: str, jwt: str, called: str) -> list[Answered]:
    """With a token of minutes that is made for it, and with a login's: where each may stand and
    where it may not, whole and cut."""
    said = (("Authorization", f"Bearer {token}"), ("Content-Type", "application/json"))
    made = await call(url, "POST", "/tokens", *said, body=b'{"seconds": 300, "calls": 9}')
    assert made.status == 201
    answers: list[Answered] = []
    for text in (made.json()["token"], jwt):
        assert text in LEDGER.tokens
        bearer = ("Authorization", f"Bearer {text}")
        cut = ("Authorization", f"Bearer {text[:-1]}")
        told = [
            await call(url, "GET", target, field)
            for target, field in (
                (f"/proxy?server={called}{FOREVER}", bearer),
                (f"/proxy?server={called}", cut),
                (f"/proxy?server={called}&service={text}", bearer),
                (f"/proxy/{text}/x?a={text}", ("X-Relay-Token", token)),
                (f"/usage?{text}={text}", bearer),
            )
        ]
        assert [answer.status for answer in told[:2]] == [200, 401]
        assert all(400 <= answer.status < 500 for answer in told[2:])
        answers += told
    return answers


async def test_no_secret_leaves_the_process_or_lies_on_disk(tmp_path: Path) -> None:
    """Answers, errors, logs, command line output, files; after success, failure and refusal."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environ = {"TMPDIR": str(temporary)}
    said: list[Ended] = []
    answers: list[Answered] = []

    async def run(*arguments: str, stdin: str = "") -> Ended:
        said.append(await keyrelay(data, *arguments, stdin=stdin, **environ))
        return said[-1]

    async with (
        Origin(reply(200, [], b"fine")) as origin,
        TraceCollector() as collector,
        Issuer(now=time.time()) as issuer,
    ):
        (data / "keys.yaml").write_text(
            f"services: {{openai: {{origin: '{origin.url}'}}}}\n"
            f"server: {{traces_endpoint: '{collector.url}'}}\n"
            f"sign_in: [{{name: login, issuer: '{issuer.url}', audience: [keyrelay],"
            f" jwks: '{issuer.url}/keys.json'}}]\n"
        )
        await run("init")
        await run("key", "add", "openai", stdin=KEY + "\n")
        await run("key", "add", "openai", KEY)
        await run("key", "add", "openai", stdin=KEY + "\n")
        await run("key", "rotate", "openai", stdin=SECOND + "\n")
        await run("key", "add", "google-maps", stdin=KEY + "\n")
        await run("key", "list", "--json")
        await run("key", "test", "openai")
        await run("token", "list")
        token = (await keyrelay(data, "token", "issue", "caller")).out.strip()
        revoked = (await keyrelay(data, "token", "issue", "gone")).out.strip()
        await run("token", "revoke", "gone")
        admin = (await keyrelay(data, "token", "issue", "boss", "--role", "admin")).out.strip()
        url = f"{origin.url}/v1&service=openai"
        await run("explain", f"/proxy?server={url}", stdin=token + "\n")
        async with served(data, **environ) as server:

            async def ask(target: str, *headers: tuple[str, str], body: bytes = b"") -> None:
                sent = headers or (("Authorization", f"Bearer {token}"),)
                answers.append(await call(server.url, "POST", target, *sent, body=body))

            async def ask_page(target: str) -> None:
                bearer = ("Authorization", f"Bearer {token}")
                answers.append(await call(server.url, "GET", target, bearer))

            await ask(f"/proxy?server={url}{FOREVER}", body=b"kept")
            await ask(f"/proxy?server={url}{FOREVER}", body=b"kept")
            for name in ("traceparent", "tracestate", "baggage", "X-Request-ID"):
                sent = ("Authorization", f"Bearer {token}"), (name, f"a={QUERY}")
                answers.append(await call(server.url, "POST", f"/proxy?server={url}", *sent))
            await ask(f"/proxy/openai/v1/{QUERY}?private={QUERY}", body=QUERY.encode())
            jwt = issuer.token()
            answers += await come_for_minutes(server.url, token, jwt, url)
            origin.answer_with(echo)
            answers_before = len(answers)
            await ask(f"/proxy?server={url}{FOREVER}", body=b"echoed")
            echoed = answers.pop()
            assert len(answers) == answers_before
            assert echoed.header("x-echo") is None
            assert echoed.header("x-other") == "1"
            origin.answer_with(reply(302, [("Location", f"https://evil.example/?k={SECOND}")]))
            await ask(f"/proxy?server={url}")
            origin.answer_with(
                b"HTTP/1.1 999 what\r\n\r\n", b"garbage " + SECOND.encode() + b"\r\n\r\n"
            )
            await ask(f"/proxy?server={url}")
            await ask(f"/proxy?server={url}")
            usage = {"prompt_tokens": 1, "completion_tokens": 2}
            named_so = json.dumps({"model": SECOND, "id": SECOND, "usage": usage}).encode()
            origin.answer_with(reply(200, [("Content-Type", "application/json")], named_so))
            await ask(f"/proxy?server={url}")
            assert SECOND.encode() in answers.pop().body  # the caller's provider may echo
            for query in ("", f"?{token}={token}", f"?service={token}", f"?from={token}"):
                await ask_page(f"/usage{query}")
            scraper = ("Authorization", f"Bearer {admin}")
            answers.append(await call(server.url, "GET", "/metrics", scraper))
            assert b'keyrelay_key_calls_total{alias="default",service="openai"' in answers[-1].body
            await ask(f"/proxy?server=https://{token}.example/&service=openai")
            await ask(f"/proxy?server={url}&service={token}")
            await ask(f"/proxy?server={url}", ("Authorization", f"Bearer {revoked}"))
            await ask(f"/proxy?server={url}", ("Authorization", f"Bearer {KEY}"))
            await ask(
                f"/proxy?server=https://maps.googleapis.com/x?key={token}&service=google-maps",
                ("X-Relay-Token", "none"),
            )
            await ask(f"/proxy/{token}/x")
            await ask(f"/{token}")
            await ask(f"/errors/{token}")
            await administer(server.url, admin, answers)
            async with await Caller.connect(server.url) as caller:
                await caller.send(f"GET /{token} HTTP/1.1\r\nA {token}\r\n\r\n".encode())
                answers.append(await caller.answer())
            outside = server.proc("cmdline") + server.proc("environ")
            assert b"proxy.cli" in outside
        for words in (("--all",), ("--by", "token", "--csv"), ("--by", "service", "--json")):
            await run("usage", *words)
        secrets = (KEY, SECOND, *LEDGER.tokens)
        assert {token, revoked, admin, jwt} <= LEDGER.tokens
        for one in answers:
            assert holds(repr((one.headers, one.body)).encode(), *secrets) == []
        for ended in said:
            assert holds((ended.out + ended.err).encode(), *secrets) == []
            assert "Traceback" not in ended.err
        assert '"event":"call"' in "".join(server.said)
        assert holds("".join(server.said).encode(), *secrets) == []
        assert "Traceback" not in "".join(server.said)
        assert holds(outside, *secrets) == []
        for path, octets in files(tmp_path):
            assert (path.name, holds(octets, *secrets)) == (path.name, [])
        assert not any(b"kept" in octets for _, octets in files(data))
        assert len(collector.spans) > 20
        for sent in collector.requests:
            assert holds(repr((sent.headers, sent.target, sent.body)).encode(), *secrets) == []
            assert holds(sent.raw + sent.body, *secrets, QUERY) == []


async def test_an_answer_that_holds_the_key_is_given_but_never_kept(tmp_path: Path) -> None:
    """The caller's provider may echo; our disk does not."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    async with Origin(echo) as origin:
        (data / "keys.yaml").write_text(f"services: {{openai: {{origin: '{origin.url}'}}}}\n")
        await keyrelay(data, "init")
        await keyrelay(data, "key", "add", "openai", stdin=KEY + "\n")
        token = (await keyrelay(data, "token", "issue", "caller")).out.strip()
        async with served(data) as server:
            target = f"/proxy?server={origin.url}/v1&service=openai{FOREVER}"
            for _ in range(2):
                await call(server.url, "GET", target, ("X-Relay-Token", token))
        assert len(origin.requests) == 2


def nameless() -> dict[tuple[int, int], bytes]:
    """What lies in files of this process that have no name any more."""
    found = {}
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if handle.is_file() and handle.readlink().name.endswith(" (deleted)"):
                which = handle.stat()
                found[which.st_dev, which.st_ino] = handle.read_bytes()
    return found


async def test_a_key_lies_nowhere_in_the_open_on_its_way(tmp_path: Path) -> None:
    """An answer and a body that memory has no room for are in files meanwhile."""
    size = 3 << 20
    at_work = asyncio.Event()

    async def repeat(exchange: Exchange) -> None:
        said = (exchange.request.header("authorization") or "").encode()
        await exchange.send(head(200, [("Content-Length", str(size))]))
        await exchange.send((said * (size // len(said) + 1))[: size - 1])
        at_work.set()
        await exchange.hung_up()

    async with (
        Origin(repeat) as origin,
        running_relay(tmp_path / "data", {"openai": {"origin": origin.url}}) as up,
    ):
        await up.add_key("openai", key=KEY)
        before = nameless()
        target = f"/proxy?server={origin.url}/v1&service=openai{FOREVER}"
        body = (KEY.encode() * (size // len(KEY) + 1))[:size]
        calling = asyncio.create_task(
            call(up.url, "POST", target, ("X-Relay-Token", up.token), body=body)
        )
        try:
            async with asyncio.timeout(30):
                await at_work.wait()
                while len(there := b"".join(new(before))) < 2 * size - 1 - (2 << 20):
                    await asyncio.sleep(0.01)
        finally:
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
    assert holds(there, KEY) == []


def new(before: Collection[tuple[int, int]]) -> list[bytes]:
    """Without those that were there before."""
    return [octets for which, octets in nameless().items() if which not in before]
