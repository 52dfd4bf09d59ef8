"""The entries of `limits.quotas`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from proxy.config import ConfigError, Limits, load_config
from proxy.limits.grammar import parse_rate

ROOT = Path(__file__).parents[2]


def quotas(folder: Path, *entries: str) -> Limits:
    path = folder / "keys.yaml"
    lines = "".join(f"    - {entry}\n" for entry in entries)
    path.write_text(f"limits:\n  quotas:\n{lines}")
    return load_config(path, {}).limits


def test_an_entry_becomes_rates_in_order(tmp_path: Path) -> None:
    """One text or several; a service by any of its names; an empty list is something said."""
    limits = quotas(
        tmp_path,
        "{token: '*', calls: [1000/day, 60 per minute], budget: 0}",
        "{token: ann, tenant: lab, service: gemini, upstream_calls: 5/2 hours, calls: []}",
        "{token: 'key:openai/default', budget: 9}",
        "{tenant: '*', calls: 1/second}",
    )
    first, second, third, fourth = limits.quotas
    assert first.calls == (parse_rate("60/minute"), parse_rate("1000/day"))
    assert (first.budget, first.upstream_calls) == (0, None)
    assert (second.service, second.calls) == ("google-gemini", ())
    assert second.upstream_calls == (parse_rate("5/2 hours"),)
    assert (third.token, third.budget) == ("key:openai/default", 9)
    assert (fourth.tenant, fourth.token) == ("*", None)


@pytest.mark.parametrize(
    ("entry", "place", "expected"),
    [
        ("{calls: 1/day}", "", "expected token: or tenant:"),
        ("{token: '*'}", "", "expected calls:, upstream_calls: or budget:"),
        ("{token: '*', tenant: '*', calls: 1/day}", "", "expected the name of a tenant beside"),
        ("{tenant: '*', budget: 5}", "", "expected budget: for a token and all services together"),
        ("{token: a, service: openai, budget: 5}", "", "expected budget: for a token and all"),
        ("{token: a, budget: -1}", ".budget", "expected greater than or equal to 0"),
        ("{token: 'a b', budget: 1}", ".token", "expected a token's name, key:SERVICE/ALIAS"),
        ("{tenant: A, calls: 1/day}", ".tenant", "expected a tenant's name, or * for each"),
        ("{token: a, calls: 60}", ".calls", "expected a limit such as 60/minute, or a list"),
        ("{token: a, calls: [60]}", ".calls", "expected a limit such as 60/minute, or a list"),
        ("{token: a, calls: 60/year}", ".calls", "a unit is one of second, minute"),
        ("{token: a, calls: [1/day, 2/day]}", ".calls", "expected one limit for each period"),
        ("{token: a, service: nosuch, calls: 1/day}", ".service", "keyrelay service list"),
        ("{token: a, rate: 1/day}", ".rate", "expected one of token, tenant, service, calls"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, entry: str, place: str, expected: str) -> None:
    """File, path in it, what was expected."""
    with pytest.raises(ConfigError) as refused:
        quotas(tmp_path, entry)
    [line] = refused.value.mistakes
    assert line.startswith(f"{tmp_path}/keys.yaml: limits.quotas[0]{place}: ")
    assert expected in line


def test_each_is_limited_once(tmp_path: Path) -> None:
    """Two entries for one would contradict each other."""
    entry = "{token: ann, service: gemini, calls: 1/day}"
    with pytest.raises(ConfigError, match=r"one entry for token ann service google-gemini, found"):
        quotas(tmp_path, entry, entry.replace("gemini", "google-gemini"))


def test_what_the_example_shows_can_be_used(tmp_path: Path) -> None:
    """The entries in its comment."""
    text = (ROOT / "keys.example.yaml").read_text()
    shown = text.split("  #   quotas:\n")[1].split("  #\n")[0]
    entries = yaml.safe_load("\n".join(line.removeprefix("  #") for line in shown.splitlines()))
    assert len(quotas(tmp_path, *(str(entry) for entry in entries)).quotas) == len(entries) == 4
