"""Loads a server with wrk, and reads what wrk says."""

from __future__ import annotations

import re
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.room import HERE, program

SCRIPT = HERE / "load.lua"
UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7, "h": 3.6e9}


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of request: `path` with its query, fields, a body's file, and how many at once.

    `unique` adds a parameter that makes every request another one.
    """

    path: str
    method: str = "GET"
    fields: tuple[tuple[str, str], ...] = ()
    body: Path | None = None
    connections: int = 32
    unique: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """What wrk counted: times in microseconds; `refused` answers weren't 2xx or 3xx."""

    requests: int
    per_second: float
    p50: float
    p99: float
    refused: int = 0
    broken: int = 0


def parse_duration(text: str) -> float:
    """`1.25ms` in microseconds."""
    found = re.fullmatch(r"([\d.]+)(us|ms|s|m|h)", text)
    if found is None:
        raise ValueError(f"expected a duration of wrk's, got {text!r}")
    return float(found[1]) * UNITS[found[2]]


def parse_output(text: str) -> Loaded:
    """Reads the report of `wrk --latency`."""
    return Loaded(
        requests=int(_one(r"(\d+) requests in", text)),
        per_second=float(_one(r"Requests/sec:\s+([\d.]+)", text)),
        p50=parse_duration(_one(r"\n\s+50%\s+(\S+)", text)),
        p99=parse_duration(_one(r"\n\s+99%\s+(\S+)", text)),
        refused=int(_one(r"Non-2xx or 3xx responses: (\d+)", text, "0")),
        broken=sum(
            int(number) for number in re.findall(r"(?:connect|read|write|timeout) (\d+)", text)
        ),
    )


def _one(pattern: str, text: str, otherwise: str | None = None) -> str:
    if found := re.search(pattern, text):
        return found[1]
    if otherwise is None:
        raise ValueError(f"wrk's report has no {pattern!r}: {text[-300:]!r}")
    return otherwise


def command(load: Load, port: int, seconds: int) -> list[str]:
    """How wrk is called: one thread, so that it takes one core at most."""
    fields = [f"{name}: {value}" for name, value in load.fields]
    word = f"{secrets.token_hex(4)}-" if load.unique else "-"
    size = ["-t1", f"-c{load.connections}", f"-d{seconds}s", "--timeout", "30s", "--latency"]
    url = f"http://127.0.0.1:{port}{load.path}"
    body = str(load.body) if load.body else "-"
    return [program("wrk"), *size, "-s", str(SCRIPT), url, "--", load.method, body, word, *fields]


def run(load: Load, port: int, seconds: int) -> Loaded:
    """Loads the server for so long."""
    done = subprocess.run(
        command(load, port, seconds),
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    return parse_output(done.stdout)
