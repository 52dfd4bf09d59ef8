"""What an admin sees of calls: the log, the metrics, and one id in answer, log and error."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.caller import Answered, Caller, call
from tests.support.command import command
from tests.support.origin import Origin, reply
from tests.support.process import COMMAND, Served, environment, served
from tests.support.relay import Running, running_relay
from tests.support.resolver import FakeResolver

KEY = "sk-CANARY/0123456789+abcdefghijklmnop"
GONE = "unknown, revoked, expired or forged"
WELL_FORMED = re.compile(r"[0-9a-f]{32}")


def bearer(token: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {token}"


@asynccontextmanager
async def scene(tmp_path: Path, settings: str = "") -> AsyncIterator[tuple[Path, str, str]]:
    """A data directory, a token, and the URL of a provider that says fine."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    async with Origin(reply(200, [], b"fine")) as origin:
        text = f"services: {{openai: {{origin: '{origin.url}'}}}}\n{settings}"
        (data / "keys.yaml").write_text(text)
        await command(data, "init")
        await command(data, "key", "add", "openai", stdin=KEY + "\n")
        token = (await command(data, "token", "issue", "laptop")).out.strip()
        yield data, token, f"/proxy?server={origin.url}/v1?private=CANARY&service=openai"


def lines(server: Served) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.said if line.startswith("{")]


# The log of a real server.


async def test_each_call_is_one_line_with_its_id(tmp_path: Path) -> None:
    """A well-formed id of the caller's is kept; any other is replaced, in answer and log alike."""
    async with scene(tmp_path) as (data, token, target):
        async with served(data) as server:
            given = await call(server.url, "GET", target, bearer(token), ("X-Request-ID", "my-1"))
            for wrong in ("two words", "x" * 129, "new\tline", "ümlaut", token):
                answer = await call(
                    server.url, "GET", target, bearer(token), ("X-Request-ID", wrong)
                )
                assert WELL_FORMED.fullmatch(answer.header("x-request-id") or "")
            refused = await call(server.url, "GET", target, ("X-Request-ID", "my-2"))
        calls = [line for line in lines(server) if line["event"] == "call"]
    assert given.header("x-request-id") == given.header("x-relay-request-id") == "my-1"
    assert refused.json()["request_id"] == refused.header("x-request-id") == "my-2"
    assert len({line["id"] for line in calls}) == len(calls) == 7
    first, last = calls[0], calls[-1]
    assert first["id"] == "my-1"
    assert (first["token"], first["service"], first["status"]) == ("laptop", "openai", 200)
    assert (first["host"], first["method"], first["verdict"]) == ("127.0.0.1", "GET", "bypass")
    assert (first["received"], first["sent"]) == (0, 4)
    assert first["total_ms"] >= first["upstream_ms"] > 0
    assert (last["id"], last["status"], last["code"]) == ("my-2", 401, "unauthorized")
    assert "CANARY" not in "".join(server.said)
    assert token not in "".join(server.said)


async def test_a_refused_token_is_one_line_that_says_why(tmp_path: Path) -> None:
    """A typo is told from a forgery in the log alone: the callers get one answer."""
    async with scene(tmp_path) as (data, token, target):
        typo = token[:-1] + ("a" if token[-1] != "a" else "b")
        revoked = (await command(data, "token", "issue", "old")).out.strip()
        await command(data, "token", "revoke", "old")
        async with served(data) as server:
            shown = ("kr_x", typo, revoked)
            answers = [await call(server.url, "GET", target, bearer(one)) for one in shown]
            await call(server.url, "GET", target)
    assert len({json.dumps(one.json()["error"]) for one in answers}) == 1
    told = [(line["event"], line.get("why")) for line in lines(server)]
    assert told == [
        ("call", "a token with a typo or a piece missing"),
        ("call", "a token with a typo or a piece missing"),
        ("call", f"a well formed token with id {revoked.split('_')[1]}: {GONE}"),
        ("call", None),
    ]


async def test_level_and_form_are_settings(tmp_path: Path) -> None:
    """For people on request; without calls above the level info."""
    async with scene(tmp_path, "server: {log_format: console}") as (data, token, target):
        async with served(data) as server:
            await call(server.url, "GET", target, bearer(token))
        assert any("200 GET 127.0.0.1" in line for line in server.said)
        text = (data / "keys.yaml").read_text().replace("log_format: console", "log_level: warning")
        (data / "keys.yaml").write_text(text)
        async with served(data) as server:
            await call(server.url, "GET", target, bearer(token))
        assert lines(server) == []


def fill(pipe: str) -> None:
    """Until it takes no more."""
    sink = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    try:
        while True:
            os.write(sink, b"." * 1024)
    except BlockingIOError:
        os.close(sink)


@asynccontextmanager
async def stalled(data: Path) -> AsyncIterator[Served]:
    """A server whose standard output and error are one pipe that nobody reads after the start."""
    source, sink = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "--data", str(data), "serve", "--port", "0"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=sink,
        stderr=sink,
        env=environment(PYTHONUNBUFFERED="1"),
    )
    os.close(sink)
    try:
        said = b""
        while b"data in" not in said:
            more = await asyncio.to_thread(os.read, source, 65536)
            assert more, said
            said += more
        found = re.search(rb"listens on (http://[^\s,]+)", said)
        assert found is not None
        fill(f"/proc/{process.pid}/fd/2")
        yield Served(found[1].decode(), process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(source)


async def test_a_log_that_nobody_reads_stops_no_call_and_no_end(tmp_path: Path) -> None:
    """Far more lines than pipe and queue hold: every call is answered, and SIGTERM ends it."""
    async with scene(tmp_path) as (data, _token, _target), stalled(data) as server:
        async with asyncio.timeout(50):
            await asyncio.gather(*(burst(server.url) for _ in range(20)))
            assert (await call(server.url, "GET", "/health/live")).status == 200
        assert await server.stop() == 0


async def burst(url: str) -> None:
    async with await Caller.connect(url) as caller:
        for _ in range(25):
            await caller.send(b"GET /proxy/openai/x HTTP/1.1\r\nHost: a\r\n\r\n" * 4)
            for _ in range(4):
                assert (await caller.answer()).status == 401


async def test_closed_streams_give_their_numbers_to_nothing_of_ours(tmp_path: Path) -> None:
    """`2>&-`: the next file opened would be number 2, and the log would be written into it."""
    async with scene(tmp_path) as (data, token, target):
        script = 'exec "$@" 2>&- <&-'
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", script, "bash", *COMMAND, "--data", str(data)),
            *("serve", "--port", "0"),
            stdout=asyncio.subprocess.PIPE,
            env=environment(PYTHONUNBUFFERED="1"),
        )
        assert process.stdout is not None
        said = (await process.stdout.readline()).decode()
        url = re.findall(r"http://[^\s,]+", said)[0]
        for _ in range(3):
            assert (await call(url, "GET", target, bearer(token))).status == 200
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
        for path in data.rglob("*"):
            assert path.is_dir() or b'"event":"call"' not in path.read_bytes()
        assert (await command(data, "key", "list")).code == 0


async def test_a_full_disk_under_its_words_stops_no_server(tmp_path: Path) -> None:
    """Standard output and error that take nothing: it starts, answers, and ends."""
    async with scene(tmp_path) as (data, token, target):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", 'exec "$@" >/dev/full 2>&1', "bash", *COMMAND, "--data", str(data)),
            *("serve", "--port", str(port)),
            env=environment(),
        )
        try:
            async with asyncio.timeout(30):
                while (answer := await asked(port, target, token)) is None:
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
            assert answer.status == 200
            process.terminate()
            await asyncio.wait_for(process.wait(), 20)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def asked(port: int, target: str, token: str) -> Answered | None:
    """The answer of a server that may not listen yet."""
    try:
        return await call(f"http://127.0.0.1:{port}", "GET", target, bearer(token))
    except ConnectionRefusedError:
        return None


async def test_an_error_that_nobody_expected_is_found_by_its_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A clean 500 with the id; in the log the kinds and places of it and its cause, no text."""
    resolver = FakeResolver({"api.openai.com": ZeroDivisionError("CANARY")})
    async with running_relay(tmp_path / "data", resolver=resolver) as up:
        await up.add_key("openai", key=KEY)
        target = "/proxy?server=https://api.openai.com/v1&service=openai"
        answer = await call(up.url, "GET", target, bearer(up.token), ("X-Request-ID", "find-me"))
    assert answer.status == 500
    assert answer.json()["request_id"] == answer.header("x-request-id") == "find-me"
    assert "find-me" in answer.json()["detail"]
    assert b"ZeroDivision" not in answer.body
    [told] = [one for one in caplog.records if one.levelname == "ERROR"]
    assert told.__dict__["id"] == "find-me"
    assert "ZeroDivisionError" in told.getMessage()
    assert "tests/support/resolver.py" in told.__dict__["at"]
    assert " resolve" in told.__dict__["at"]
    assert "CANARY" not in repr(answer) + caplog.text + told.__dict__["at"]


# Metrics.


def samples(page: Answered) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(page.body.decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


async def scrape(up: Running, *headers: tuple[str, str]) -> Answered:
    return await call(up.url, "GET", "/metrics", *headers)


async def test_metrics_are_for_those_who_read_or_administer(tmp_path: Path) -> None:
    """Of the tenant default, and for all its services: the page tells of every tenant."""
    async with running_relay(tmp_path / "data") as up:
        narrow = await up.issue("narrow", role="admin", services=frozenset({"openai"}))
        refused = {
            401: [(), (bearer("kr_nonsense"),)],
            403: [
                (bearer(up.token),),
                (bearer(await up.issue("a", tenant="other", role="admin")),),
                (bearer(narrow),),
            ],
        }
        for status, headers in refused.items():
            for sent in headers:
                answer = await scrape(up, *sent)
                assert (answer.status, b"keyrelay_" in answer.body) == (status, False)
        for role in ("read", "admin"):
            answer = await scrape(up, bearer(await up.issue(role, role=role)))
            assert answer.status == 200
            assert samples(answer)["keyrelay_build_info"]


async def test_a_scrape_tells_what_has_happened(tmp_path: Path) -> None:
    """A miss that is stored, a hit, a refusal; the cache, the keys, the process."""
    data = tmp_path / "data"
    async with (
        Origin(reply(200, [], b"fine")) as origin,
        running_relay(data, {"openai": {"origin": origin.url}}) as up,
    ):
        await up.add_key("openai", key=KEY)
        await up.add_key("openai", tenant="other", key=KEY + "2")
        reader = bearer(await up.issue("prometheus", role="read"))
        target = f"/proxy?server={origin.url}/v1&service=openai&cache=4102444800"
        for _ in range(3):
            await call(up.url, "GET", target, bearer(up.token))
        await call(up.url, "GET", target)
        page = await scrape(up, reader)
    found = samples(page)
    calls = found["keyrelay_requests_total"]
    of = {(dict(labels)["status"], dict(labels)["verdict"]): n for labels, n in calls.items()}
    assert of == {("2xx", "stored"): 1, ("2xx", "hit"): 2, ("4xx", "none"): 1}
    [errors] = [one for one in found["keyrelay_errors_total"].items() if one[1]]
    assert errors == ((("code", "unauthorized"), ("service", "none")), 1)
    openai = (("service", "openai"),)
    assert found["keyrelay_upstream_seconds_count"] == {openai: 1}
    assert found["keyrelay_overhead_seconds_count"][openai] == 3
    assert found["keyrelay_sent_bytes_total"][openai] == 12
    assert found["keyrelay_cache_entries"][("layer", "memory"),] == 1
    assert found["keyrelay_in_flight"] == {(): 0}
    ages = {
        dict(labels)["tenant"]: age for labels, age in found["keyrelay_key_age_seconds"].items()
    }
    assert set(ages) == {"default", "other"}
    assert all(0 <= age < 120 for age in ages.values())
    used = {dict(labels)["tenant"]: n for labels, n in found["keyrelay_key_calls_total"].items()}
    assert used == {"default": 1, "other": 0}
    assert found["process_resident_memory_bytes"][()] > 2**20
    assert found["process_open_fds"][()] > 3


async def test_unexpected_errors_are_counted_from_nought(tmp_path: Path) -> None:
    """An alert on the increase of a series would never see the first one of a new series."""
    async with running_relay(tmp_path / "data") as up:
        reader = bearer(await up.issue("prometheus", role="read"))
        before = samples(await scrape(up, reader))["keyrelay_errors_total"]
        await up.add_key("openai", key=KEY)
        refused = "/proxy?server=https://elsewhere.test/&service=openai"
        assert (await call(up.url, "GET", refused, bearer(up.token))).status == 403
        after = samples(await scrape(up, reader))["keyrelay_errors_total"]
    code = ("code", "internal_error")
    assert before == {(code, ("service", "none")): 0}
    assert {place for place in after if code in place} >= set(before)


async def test_labels_hold_nothing_that_a_caller_wrote(tmp_path: Path) -> None:
    """Hosts, paths, methods, ids, tokens, made-up services: not a word of theirs in a scrape."""
    async with running_relay(tmp_path / "data") as up:
        reader = bearer(await up.issue("prometheus", role="read"))
        before = await scrape(up, reader)
        for number in range(30):
            target = f"/proxy?server=https://WROTE{number}.example.com/WROTE&service=wrote{number}"
            await call(up.url, "POST", target, bearer(up.token), ("X-Request-ID", "WROTE"))
            await call(up.url, "POST", f"/proxy/wrote{number}/x", bearer(f"kr_WROTE{number}"))
        after = await scrape(up, reader)
    assert b"wrote" not in after.body.lower()
    counts = [sum(map(len, samples(page).values())) for page in (before, after)]
    assert counts[1] - counts[0] < 200


async def test_the_scraper_chooses_the_format(tmp_path: Path) -> None:
    """OpenMetrics for those who ask for it; plain text where that makes no sense."""
    async with running_relay(tmp_path / "data") as up:
        reader = bearer(await up.issue("prometheus", role="read"))
        plain = await scrape(up, reader, ("Accept", "application/openmetrics-text;version=x"))
        accept = ("Accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        other = await scrape(up, reader, accept)
    assert (plain.header("content-type") or "").startswith("text/plain")
    assert (other.header("content-type") or "").startswith("application/openmetrics-text")
    assert other.body.endswith(b"# EOF\n")


async def test_two_servers_in_a_process_count_for_themselves(tmp_path: Path) -> None:
    """Nothing is global."""
    async with running_relay(tmp_path / "one") as one, running_relay(tmp_path / "two") as two:
        await call(one.url, "GET", "/proxy/openai/x")
        pages = [
            await scrape(up, bearer(await up.issue("prometheus", role="read"))) for up in (one, two)
        ]
    first, second = (samples(page).get("keyrelay_requests_total", {}) for page in pages)
    assert sum(first.values()) == 1
    assert second == {}


async def test_metrics_have_a_listener_of_their_own_where_one_is_set(tmp_path: Path) -> None:
    """Open to whoever reaches it, with nothing else on it; never a place for a key to go."""
    setting = "server: {metrics_listen: '127.0.0.1:0'}"
    async with scene(tmp_path, setting) as (data, token, target), served(data) as server:
        await call(server.url, "GET", target, bearer(token))
        [found] = re.findall(r"metrics on (http://\S+)/metrics", "".join(server.said))
        page = await call(found, "GET", "/metrics")
        elsewhere = [await call(found, "GET", path) for path in ("/", target, "/health/live")]
        aimed = f"/proxy?server={found}/metrics&service=openai"
        refused = await call(server.url, "GET", aimed, bearer(token))
    assert page.status == 200
    assert sum(samples(page)["keyrelay_requests_total"].values()) == 1
    assert [answer.status for answer in elsewhere] == [404] * 3
    assert refused.status == 403
    assert "CANARY" not in page.body.decode()
