"""What wrk is asked, and how its report is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import load
from bench.load import Load, Loaded, parse_duration, parse_output

REPORT = """\
Running 3s test @ http://127.0.0.1:9300/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.88ms  250.00us   9.91ms   94.47%
    Req/Sec    34.40k     1.10k   36.10k    81.82%
  Latency Distribution
     50%  880.00us
     75%    0.95ms
     90%    1.10ms
     99%    1.91ms
  102790 requests in 3.00s, 214.00MB read
Requests/sec:  34260.12
Transfer/sec:     71.30MB
"""


def test_report_is_read() -> None:
    """Requests, rate and two percentiles, in microseconds."""
    assert parse_output(REPORT) == Loaded(102790, 34260.12, 880.0, 1910.0)


def test_report_tells_failures() -> None:
    """Answers that refuse and sockets that break are counted apart."""
    lines = (
        "  Socket errors: connect 1, read 2, write 0, timeout 3\n  Non-2xx or 3xx responses: 7\n"
    )
    found = parse_output(REPORT.replace("Requests/sec", lines + "Requests/sec"))
    assert (found.refused, found.broken) == (7, 6)


def test_other_text_is_no_report() -> None:
    """What wrk says instead of a report stands in the error."""
    with pytest.raises(ValueError, match="unable to connect"):
        parse_output("unable to connect to 127.0.0.1:1 Connection refused")


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [("880.00us", 880), ("1.91ms", 1910), ("1.02s", 1_020_000), ("1.00m", 6e7), ("2h", 7.2e9)],
)
def test_durations(text: str, microseconds: float) -> None:
    """Every unit that wrk writes."""
    assert parse_duration(text) == pytest.approx(microseconds)


def test_duration_without_unit() -> None:
    """A bare number could be anything."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration("12")


def test_command_says_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script gets method, body, the word that makes requests differ, and fields."""
    monkeypatch.setattr(load, "program", lambda name: f"/usr/bin/{name}")
    asked = Load("/x?a=1", "POST", (("A", "b"),), Path("body"), connections=7, unique=True)
    command = load.command(asked, 9000, 3)
    assert {"-c7", "-d3s", "http://127.0.0.1:9000/x?a=1"} < set(command)
    method, body, word, *fields = command[command.index("--") + 1 :]
    assert (method, body, fields) == ("POST", "body", ["A: b"])
    assert word != load.command(asked, 9000, 3)[-2]
