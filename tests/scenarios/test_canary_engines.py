"""Marked keys and tokens of several workers, sought in the engines that they share."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.caller import call
from tests.support.canaries import LEDGER
from tests.support.command import command
from tests.support.engines import RunningPostgres, RunningRedis, redis_running
from tests.support.issuer import Issuer
from tests.support.origin import Origin, json_reply
from tests.support.process import Served, served

KEY = "sk-CANARY/0123456789+abcdefghijklmnop"
DECLARED = "sk-CANARY-declared-9876543210-zyxwvutsr"
PASSWORD = "CANARY-of-the-redis-0123456789"
END = "the-end-of-what-was-told"
PROMPTED = b'{"prompt": "kept"}'


@asynccontextmanager
async def overheard(redis: RunningRedis, into: Path) -> AsyncIterator[None]:
    """All that a Redis is told, by whomever."""
    asked = ("-a", PASSWORD, "--no-auth-warning")
    words = ["redis-cli", "-p", str(redis.port), *asked, "monitor"]
    with into.open("wb") as file, subprocess.Popen(words, stdout=file) as monitor:
        try:
            await until_told(into, b"OK")
            yield
            redis.say(*asked, "echo", END)
            await until_told(into, END.encode())
        finally:
            monitor.terminate()


async def until_told(into: Path, words: bytes) -> None:
    async with asyncio.timeout(20):
        while words not in into.read_bytes():
            await asyncio.sleep(0.02)


async def come_with_each(up: Served, called: str, credentials: list[tuple[str, str]]) -> None:
    """Calls that are counted, kept, found and renewed, by everybody."""
    for name, text in credentials:
        for options in (
            "",
            "&cache=4102444800",
            "&cache=4102444800",
            "&cache=4102444800&invalidate",
        ):
            answer = await call(
                up.url, "POST", f"/proxy?server={called}{options}", (name, text), body=PROMPTED
            )
            assert answer.status == 200, (name, answer.body)


async def short_lived(up: Served, token: str) -> str:
    said = (("Authorization", f"Bearer {token}"), ("Content-Type", "application/json"))
    made = await call(up.url, "POST", "/tokens", *said, body=b'{"calls": 50}')
    assert made.status == 201
    return str(made.json()["token"])


def rows_of(postgres: RunningPostgres, url: str) -> bytes:
    """The files of a database's tables and indexes, long values among them."""
    postgres.say("CHECKPOINT")
    name = url.rpartition("/")[2]
    ours = "SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    long = f"SELECT reltoastrelid FROM pg_class WHERE oid IN ({ours})"
    asked = f"SELECT pg_relation_filepath(oid) FROM pg_class WHERE oid IN ({ours} UNION {long})"
    paths = [postgres.folder / "data" / line for line in postgres.say(asked, name).split()]
    return b"".join(path.read_bytes() for path in paths if path.is_file())


async def test_no_secret_is_told_to_an_engine_or_lies_in_one(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    """Keys of the vault and of the file, tokens, those of minutes and a login's, a Redis's own
    password: with two workers that count, keep and limit together."""
    url, data, monitor = postgres.another(), tmp_path / "data", tmp_path / "monitor"
    data.mkdir(mode=0o700)
    with redis_running("--requirepass", PASSWORD, "--rdbcompression", "no") as redis:
        at = f"redis://:{PASSWORD}@{redis.host}:{redis.port}"
        environ = {"DECLARED": DECLARED, "VAULT": url, "CACHE": at}
        async with (
            Origin(json_reply({"usage": {"prompt_tokens": 3, "completion_tokens": 4}})) as origin,
            Issuer(now=time.time()) as issuer,
            overheard(redis, monitor),
        ):
            (data / "keys.yaml").write_text(
                f"services:\n  openai: {{origin: '{origin.url}'}}\n"
                f"  own: {{in: header, origin: '{origin.url}/own'}}\n"
                "keys: {own: '${DECLARED}'}\nvault: {url: '${VAULT}'}\ncache: {url: '${CACHE}'}\n"
                f"sign_in: [{{name: login, issuer: '{issuer.url}', audience: [keyrelay],"
                f" jwks: '{issuer.url}/keys.json'}}]\n"
            )
            async with served(data, "--workers", "2", **environ) as up:
                await command(data, "key", "add", "openai", stdin=KEY + "\n", **environ)
                issued = ("token", "issue", "boss", "--role", "admin", "--limit", "500/minute")
                token = (await command(data, *issued, "--budget", "400", **environ)).out.strip()
                login, short = issuer.token(), await short_lived(up, token)
                texts = [("X-Relay-Token", text) for text in (token, short, login)]
                await come_with_each(up, f"{origin.url}/v1&service=openai", texts)
                await come_with_each(up, f"{origin.url}/own&service=own", texts)
                assert origin.last.header("authorization") == f"Bearer {DECLARED}"
                await call(up.url, "GET", "/metrics", texts[0])
            redis.say("-a", PASSWORD, "--no-auth-warning", "save")
        assert {KEY, DECLARED, PASSWORD} <= LEDGER.keys
        assert {token, short, login} <= LEDGER.tokens
        told = monitor.read_bytes()
        look_at("what Redis was told", told, b"keyrelay")
        look_at("the same octets", told.decode("unicode_escape").encode("latin-1", "replace"))
        look_at("what Redis keeps", (redis.folder / "dump.rdb").read_bytes(), b"keyrelay")
    look_at("the backup of PostgreSQL", postgres.dump(url), b"boss")
    look_at("the files of PostgreSQL", rows_of(postgres, url), b"boss")


def look_at(where: str, octets: bytes, there: bytes = b"") -> None:
    """`there`: what stands in it if it is what it should be."""
    assert there in octets
    LEDGER.look(where, octets)
    assert LEDGER.leaks == []
