"""What each guard adds to a call, in CPU: `python -m bench.guards` writes results/guards.json.

Everything runs in one process. Around each guard a whole hit is measured, from the caller's octets
to the answer's on a connection in memory, so that a machine that is slow just then is so for both:
the guard's share is the quotient of the two. Most guards are asked once for a header that comes
again, or for a connection; what then finds the memory is counted as a guard of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, NamedTuple

from uvicorn.config import Config as ServerConfig
from uvicorn.server import ServerState

from bench.results import FOLDER
from proxy.alarm import Alarm
from proxy.app import Surroundings, assemble
from proxy.call import Call, parse_directions
from proxy.clock import SystemClock
from proxy.config import Config
from proxy.destinations import parse_destination
from proxy.door import Door, DoorRules
from proxy.errors import Unauthorized
from proxy.familiar import Familiar, outlined
from proxy.fields import request_fields, response_fields
from proxy.framing import check_framing
from proxy.grant import Client
from proxy.guesses import Guesses
from proxy.header import look_over
from proxy.injection import EchoMatcher
from proxy.leaks import holds_token
from proxy.limits.grammar import parse_rate
from proxy.messages import Fields
from proxy.network import Dialler
from proxy.orderly import OrderlyProtocol
from proxy.patience import Waits
from proxy.reach import Reach
from proxy.record import CallRecord
from proxy.remembered import RememberedGrants
from proxy.services import Services, load_services
from proxy.trail import Trail
from proxy.upstream.wire.guards import check_answer
from vault import Holdings, KeyRef, NewKey, NewToken, Secret, Vault, open_vault

ROUNDS, SECONDS = 25, 0.02
KEY: Final = b"sk-bench-0123456789abcdef0123456789abcdef"
BODY: Final = b'{"id":"x","choices":[{"message":{"content":"' + b"words " * 330 + b'"}}]}'
ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: Sat, 21 Nov 2026 00:00:00 GMT\r\n"
    b"x-request-id: req_0123456789\r\nopenai-processing-ms: 120\r\nserver: bench\r\n"
    b"content-length: %d\r\n\r\n" % len(BODY)
)
CACHED: Final = b"/proxy/openai/cache=4102444800/-/v1/models"


WHEN: Final = {
    "call": "each call",
    "header": "a header that is new",
    "connection": "a connection",
    "forward": "each answer of an upstream",
    "dial": "a connection to an upstream",
    "change": "once after a change of the vault",
    "refusal": "a destination that is refused",
}


class Guard(NamedTuple):
    """`when` it is asked, a word of WHEN; `act`: once."""

    name: str
    when: str
    act: Callable[[], object] | Callable[[], Awaitable[object]]


class Far(asyncio.Transport):
    """A connection's other end, in memory."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.7", 4711)})
        self.written = bytearray()

    def write(self, data: Any) -> None:
        """From the server."""
        self.written += data

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """Never."""
        return False

    def pause_reading(self) -> None:
        """All the same."""

    resume_reading = close = pause_reading


class Stage(NamedTuple):
    """All that a guard may need."""

    vault: Vault
    services: Services
    token: bytes
    fields: Fields
    hit: Callable[[], Awaitable[object]]
    calls: list[CallRecord]


def request(target: bytes, token: bytes) -> bytes:
    """As an SDK sends it."""
    return (
        b"GET %b HTTP/1.1\r\nhost: relay.example.com\r\nauthorization: Bearer %b\r\n"
        b"accept: application/json\r\nuser-agent: OpenAI/Python 2.1.0\r\n"
        b"accept-encoding: gzip, deflate\r\nx-stainless-lang: python\r\n"
        b"x-stainless-os: Linux\r\nx-stainless-runtime: CPython\r\nconnection: keep-alive\r\n\r\n"
    ) % (target, token)


@contextlib.asynccontextmanager
async def staged(data: Path) -> AsyncIterator[Stage]:
    """A whole keyrelay whose cache holds the one answer."""
    clock, config = SystemClock(), Config()
    upstream = await asyncio.start_server(_answer, "127.0.0.1", 0)
    port = upstream.sockets[0].getsockname()[1]
    services = load_services({"openai": {"origin": f"http://127.0.0.1:{port}"}})
    vault = await open_vault(data, {}, clock, create=True)
    await vault.put_key(NewKey("default", "openai", "main", {"key": Secret(KEY)}))
    _, text = await vault.issue_token(NewToken("default", "bench"))
    calls: list[CallRecord] = []
    around = Surroundings(data, clock, observers=(partial(_note, calls),))
    relay = await assemble(config, services, vault, around)
    await relay.start()
    octets = request(CACHED, text.encode())
    familiar, far = Familiar(), Far()
    server = ServerConfig(relay, log_config=None, lifespan="off")
    server.load()
    state = {"config": server, "server_state": ServerState(), "app_state": {}}
    connection = OrderlyProtocol(**state, waits=Waits(), familiar=familiar)
    connection.connection_made(far)
    fields = tuple(
        (name, value.strip())
        for name, _, value in (line.partition(b":") for line in octets.split(b"\r\n")[1:-2])
    )
    try:
        hit = partial(_hit, connection, far, octets)
        for _ in range(3):
            assert BODY in await hit()
        assert b"; hit" in await hit()
        yield Stage(vault, services, text.encode(), fields, hit, calls)
    finally:
        connection.connection_lost(None)
        await relay.stop()
        await vault.close()
        upstream.close()


def _note(calls: list[CallRecord], call: CallRecord) -> None:
    calls[:] = [call]


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(ANSWER + BODY)
    writer.close()


async def _hit(connection: OrderlyProtocol, far: Far, octets: bytes) -> bytes:
    far.written.clear()
    connection.data_received(octets)
    while not far.written.endswith(BODY):  # noqa: ASYNC110 - an event would be measured too
        await asyncio.sleep(0)
    return bytes(far.written)


def guards(stage: Stage) -> Iterator[Guard]:
    """In the order in which a call meets them."""
    clock, fields, token = SystemClock(), stage.fields, stage.token
    octets, target = request(CACHED, token), CACHED
    url = "https://api.openai.com/v1/models?limit=20"
    place = parse_destination(url)
    familiar = Familiar()
    alarm = Alarm(asyncio.get_running_loop(), lambda: None)
    door = Door(DoorRules(connections=1000, per_address=100), clock)
    guesses = Guesses(parse_rate("30/minute"), clock)
    slots = stage.services.credential_headers
    matcher = EchoMatcher.of({"key": Secret(KEY)}, _service(stage))
    answered = tuple(
        (name, value.strip())
        for name, _, value in (line.partition(b":") for line in ANSWER.split(b"\r\n")[1:-2])
    )
    yield Guard("a header that is known, found", "call", lambda: _found(familiar, octets))
    yield Guard("deadlines of header, body and idling", "call", lambda: _timed(alarm))
    trail = Trail(stage.vault, clock)
    call = stage.calls[0]
    yield Guard("the grant of that header", "call", _granted(clock))
    yield Guard("does the audit log want it", "call", lambda: trail.observe(call))
    yield Guard("caps on connections", "connection", lambda: door.leave(door.enter("192.0.2.7")))  # type: ignore[arg-type]
    yield Guard("framing of the request", "header", lambda: check_framing("1.1", target, fields))
    yield Guard("one pass over the header", "header", lambda: look_over("GET", target, fields))
    parse = partial(parse_directions, target, stage.services)
    yield Guard("the call", "header", parse)
    yield Guard("the destination", "header", lambda: parse_destination(url))
    yield Guard("wrong tokens, bounded", "header", lambda: _guessed(guesses, token))
    yield Guard("the token", "header", lambda: stage.vault.verify_token(token))
    values = [value for _, value in fields]
    yield Guard(
        "no token in what is forwarded",
        "header",
        lambda: [holds_token(value) for value in (*values, place.url.encode())],
    )
    yield Guard("which fields pass", "header", lambda: request_fields(fields, slots))
    yield Guard("the token, read and judged", "change", lambda: _anew(stage, _verified))
    yield Guard("the key, read, judged and opened", "change", lambda: _anew(stage, _opened))
    dialler = Dialler(_Resolver())
    yield Guard(
        "addresses before they are dialled",
        "dial",
        lambda: dialler.addresses("api.openai.com", 443, Reach.PUBLIC),
    )
    yield Guard("framing of the answer", "forward", lambda: check_answer(ANSWER))
    yield Guard("which fields come back", "forward", lambda: response_fields(answered))
    yield Guard(
        "the key, looked for in the fields",
        "forward",
        lambda: [matcher.in_value(value) for _, value in answered],
    )
    yield Guard("the key, looked for in 2 KB", "forward", lambda: matcher.scanner().feed(BODY))
    refused = call._replace(code="destination_refused", host="evil.example.com")
    yield Guard("a row, or one more left out", "refusal", lambda: trail.observe(refused))


class _Resolver:
    async def resolve(self, host: str, port: int) -> list[Any]:  # noqa: ARG002
        return [ip_address("104.18.6.192"), ip_address("2606:4700::6812:7c0")]


def _granted(clock: SystemClock) -> Callable[[], object]:
    """As it is found for a header that was let through before: by its hash."""
    remembered = RememberedGrants(clock, lambda: (1, 2, 3))
    body: Any = None
    call = Call("GET", Unauthorized(""), (), body, "", head=bytes(32))
    grant: Any = object()
    remembered.keep(call, Client("bench", Holdings("default")), grant, remembered.basis())
    assert remembered.grant(call) is grant
    return partial(remembered.grant, call)


def _service(stage: Stage) -> Any:
    return stage.services.get("openai")


def _found(familiar: Familiar, octets: bytes) -> object:
    outline = outlined(octets)
    return outline and familiar.find(outline)


def _timed(alarm: Alarm) -> None:
    now = time.monotonic()
    for seconds in (10, 30, 60):
        alarm.set(now + seconds)
    alarm.stop()


def _guessed(guesses: Guesses, token: bytes) -> None:
    guesses.check("192.0.2.7", token)
    guesses.right(token)


async def _anew(stage: Stage, act: Callable[[Stage], Awaitable[object]]) -> object:
    stage.vault._core.forget()
    return await act(stage)


async def _verified(stage: Stage) -> object:
    return await stage.vault.verify_token(stage.token)


async def _opened(stage: Stage) -> object:
    return await stage.vault.open_key(KeyRef("default", "openai", "main", 1))


async def timed(act: Callable[[], Any], times: int) -> float:
    """CPU seconds of the whole process for one."""
    began = time.process_time()
    for _ in range(times):
        found = act()
        if isinstance(found, Awaitable):
            await found
    return (time.process_time() - began) / times


async def _often(act: Callable[[], Any]) -> int:
    times = 1
    while (took := await timed(act, times) * times) < SECONDS / 4:
        times *= 4
    return max(1, math.ceil(times * SECONDS / took))


async def measured(guard: Guard, stage: Stage) -> tuple[list[float], float]:
    """The share of a hit in each round, and the quickest hit."""
    times, hits = await _often(guard.act), await _often(stage.hit)
    pairs = [(await timed(guard.act, times), await timed(stage.hit, hits)) for _ in range(ROUNDS)]
    return [one / hit for one, hit in pairs], min(hit for _, hit in pairs)


def told(found: Mapping[Guard, list[float]], hit: float) -> dict[str, dict[str, object]]:
    """By the names of the guards. `share` of a hit: the median; `spread`: between the quartiles;
    `microseconds`: that share of the quickest hit (seconds)."""
    rows: dict[str, dict[str, object]] = {
        "a hit": {"when": "", "microseconds": round(hit * 1e6, 1)}
    }
    for guard, shares in found.items():
        low, middle, high = statistics.quantiles(shares, n=4)
        rows[guard.name] = {
            "when": guard.when,
            "microseconds": round(middle * hit * 1e6, 2),
            "share": round(middle, 4),
            "spread": round((high - low) / middle, 2),
        }
    return rows


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """As the documentation shows it."""
    lines = ["| asked for | guard | µs of CPU | of a hit |", "|---|---|---|---|"]
    for when, words in WHEN.items():
        for name, row in rows.items():
            if row["when"] == when:
                share, taken = row["share"], row["microseconds"]
                shown = f"{share:.0%}" if share < 10 else f"{share:.0f} x"
                lines.append(f"| {words} | {name} | {taken:.1f} | {shown} |")
    return "\n".join(lines) + "\n"


async def main() -> None:
    """Keeps the figures, and prints their table."""
    found: dict[Guard, list[float]] = {}
    quickest = math.inf
    with tempfile.TemporaryDirectory(prefix="keyrelay-bench-") as folder:
        async with staged(Path(folder) / "data") as stage:
            for guard in guards(stage):
                found[guard], hit = await measured(guard, stage)
                quickest = min(quickest, hit)
    rows = told(found, quickest)
    (FOLDER / "guards.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows), end="")


if __name__ == "__main__":
    asyncio.run(main())
