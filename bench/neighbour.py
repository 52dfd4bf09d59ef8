"""Two tenants: what one that calls a hundred times above its limit does to the other's latency."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace

from bench import load, matter
from bench.case import Bodies, post
from bench.paced import Paced, octets
from bench.peers.keyrelay import Install, issue
from bench.running import running
from bench.summary import percentile

RATE = 200.0
"""Requests per second of the quiet one."""

NOISY_LIMIT = 20
"""Calls per second that the noisy one may make."""

NOISY_CONNECTIONS = 4
"""Enough for some hundred times the limit; more would only fill the machine."""

SETTINGS: dict[str, dict[str, object]] = {
    "limits": {"quotas": [{"tenant": "noisy", "calls": f"{NOISY_LIMIT}/second"}]}
}


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The quiet one's microseconds before and during, answered or the run breaks; and how many
    times its limit the other one called, and how many of those calls were refused."""

    before_p50: float
    before_p99: float
    during_p50: float
    during_p99: float
    times_limit: float
    refused: float


def measure(ready: Install, bodies: Bodies, seconds: int) -> Neighbour:
    """The quiet one alone, then beside the noisy one. An answer to it that is no 200 breaks off."""
    path = ready.path("plain", matter.COMPLETIONS)
    quiet = post(path, bodies["question"], ready.token_field)
    loud = post(path, bodies["question"], ("Authorization", f"Bearer {issue(ready, 'noisy')}"))
    noisy = replace(loud, connections=NOISY_CONNECTIONS)
    with running(ready.program) as server:
        load.run(quiet, server.port, 1)
        before = Paced(server.port, octets(quiet, server.port)).run(RATE, seconds)
        command = load.command(noisy, server.port, seconds + 1)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shouting:
            during = Paced(server.port, octets(quiet, server.port)).run(RATE, seconds)
            said, _ = shouting.communicate()
    heard = load.parse_output(said)
    return Neighbour(
        percentile(before, 0.5),
        percentile(before, 0.99),
        percentile(during, 0.5),
        percentile(during, 0.99),
        heard.per_second / NOISY_LIMIT,
        heard.refused / heard.requests,
    )
