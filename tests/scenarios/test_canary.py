"""Marked keys and tokens leave the process only where they should, and lie nowhere in the clear."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from tests.support.caller import Answered, Caller, call
from tests.support.origin import Exchange, Origin, reply
from tests.support.process import Ended, keyrelay, served

KEY = "sk-CANARY/0123456789+abcdefghijklmnop"
SECOND = "sk-CANARY-rotated-0123456789-abcdefgh"
FOREVER = "&cache=4102444800"


def forms(secret: str) -> Iterator[bytes]:
    """The ways in which a secret may stand somewhere without being plain to see."""
    octets = secret.encode()
    yield octets
    yield octets.hex().encode()
    yield quote(secret, safe="").encode()
    yield json.dumps(secret)[1:-1].replace("/", "\\/").encode()
    for before in (b"", b"x", b"xx"):
        whole = base64.b64encode(before + octets)
        yield whole[4 : len(whole) - 4]


def holds(octets: bytes, *secrets: str) -> list[str]:
    return [secret for secret in secrets if any(form in octets for form in forms(secret))]


def files(data: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(data.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes()


async def echo(exchange: Exchange) -> None:
    """A provider that tells everything it was sent."""
    said = repr(exchange.request.headers).encode()
    fields = [("X-Echo", exchange.request.header("authorization") or ""), ("X-Other", "1")]
    await exchange.reply(200, fields, said)


async def test_no_secret_leaves_the_process_or_lies_on_disk(tmp_path: Path) -> None:
    """Answers, errors, logs, command line output, files; after success, failure and refusal."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    said: list[Ended] = []
    answers: list[Answered] = []

    async def run(*arguments: str, stdin: str = "") -> Ended:
        said.append(await keyrelay(data, *arguments, stdin=stdin))
        return said[-1]

    async with Origin(reply(200, [], b"fine")) as origin:
        (data / "keys.yaml").write_text(f"services: {{openai: {{origin: '{origin.url}'}}}}\n")
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
        url = f"{origin.url}/v1&service=openai"
        await run("explain", f"/proxy?server={url}", stdin=token + "\n")
        async with served(data) as server:

            async def ask(target: str, *headers: tuple[str, str], body: bytes = b"") -> None:
                sent = headers or (("Authorization", f"Bearer {token}"),)
                answers.append(await call(server.url, "POST", target, *sent, body=body))

            await ask(f"/proxy?server={url}{FOREVER}", body=b"kept")
            await ask(f"/proxy?server={url}{FOREVER}", body=b"kept")
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
            async with await Caller.connect(server.url) as caller:
                await caller.send(f"GET /{token} HTTP/1.1\r\nA {token}\r\n\r\n".encode())
                answers.append(await caller.answer())
        secrets = (KEY, SECOND, token, revoked)
        for one in answers:
            assert holds(repr((one.headers, one.body)).encode(), *secrets) == []
        for ended in said:
            assert holds((ended.out + ended.err).encode(), *secrets) == []
            assert "Traceback" not in ended.err
        assert holds("".join(server.said).encode(), *secrets) == []
        assert "Traceback" not in "".join(server.said)
        for path, octets in files(data):
            assert (path.name, holds(octets, *secrets)) == (path.name, [])
        assert not any(b"kept" in octets for _, octets in files(data))


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
