"""The dashboard and the alert rules ask for what a real scrape gives, by labels that it has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.caller import call
from tests.support.origin import Origin, reply
from tests.support.relay import running_relay

FOLDER = Path(__file__).parents[2] / "examples/monitoring"

WORDS = {
    *("sum", "min", "max", "by", "rate", "increase", "topk", "histogram_quantile", "and"),
    *("label_values",),
}
SCRAPED = {"up": {"job", "instance"}}
"""What Prometheus adds by itself."""

TOKEN = re.compile(
    r'\s+|"(?:[^"\\]|\\.)*"|\d+(?:\.\d+)?|[a-zA-Z_]\w*|\[\$?\w+\]|=~|!=|==|>=|<=|[-+*/(){},<>=]'
)


def tokens(expression: str) -> list[str]:
    """The words and signs of an expression; fails at what is none."""
    found, place = [], 0
    while place < len(expression):
        match = TOKEN.match(expression, place)
        assert match is not None, expression[place:]
        place = match.end()
        if match[0].strip():
            found.append(match[0])
    return found


def balanced(signs: list[str]) -> bool:
    open_ones: list[str] = []
    pairs = {")": "(", "}": "{"}
    for sign in signs:
        if sign in ("(", "{"):
            open_ones.append(sign)
        elif sign in pairs and (not open_ones or open_ones.pop() != pairs[sign]):
            return False
    return not open_ones


def read(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Every metric with the labels that its selector names."""
    signs = tokens(expression)
    assert balanced(signs), expression
    assert signs[-1] not in ("and", "/", ">", "<", "=="), expression
    for place, sign in enumerate(signs):
        if sign in WORDS or not re.fullmatch(r"[a-z_][a-z0-9_]*", sign):
            continue
        before = signs[:place]
        if before.count("{") > before.count("}") or _grouped(before):
            continue
        selector = signs[place + 1 :]
        labels: set[str] = set()
        if selector[:1] == ["{"]:
            inside = selector[1 : selector.index("}")]
            labels = {one for one in inside if re.fullmatch(r"[a-z_]\w*", one)}
        yield sign, labels


def _grouped(before: list[str]) -> bool:
    """Whether the words here are the labels behind `by (`, or of label_values."""
    last = len(before) - 1 - before[::-1].index("(") if "(" in before else -1
    if last < 1 or ")" in before[last:]:
        return False
    return before[last - 1] == "by" or (before[last - 1] == "label_values" and "," in before[last:])


def grouped_labels(expression: str) -> set[str]:
    found = re.findall(r"\bby \(([^)]*)\)", expression)
    return {name.strip() for names in found for name in names.split(",")}


def dashboard() -> dict[str, Any]:
    loaded = json.loads((FOLDER / "dashboard.json").read_text())
    assert isinstance(loaded, dict)
    return loaded


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    board = dashboard()
    panels = [one["expr"] for panel in board["panels"] for one in panel.get("targets", ())]
    variables = [one["query"] for one in board["templating"]["list"] if "(" in one["query"]]
    return [*panels, *variables, *(rule["expr"] for rule in rules())]


@pytest.fixture
async def scraped(tmp_path: Path) -> dict[str, set[str]]:
    """Every sample's name of a real scrape with its labels."""
    async with Origin(reply(200, [], b"fine")) as origin:
        services = {"openai": {"origin": origin.url}}
        async with running_relay(tmp_path / "data", services) as up:
            await up.add_key("openai", key="sk-0123456789abcdefghij")
            bearer = ("Authorization", f"Bearer {up.token}")
            for _ in range(2):
                target = f"/proxy?server={origin.url}/v1&service=openai&cache=4102444800"
                assert (await call(up.url, "GET", target, bearer)).status == 200
            await call(up.url, "GET", "/proxy/openai/x")
            reader = await up.issue("prometheus", role="read")
            page = await call(up.url, "GET", "/metrics", ("Authorization", f"Bearer {reader}"))
    found: dict[str, set[str]] = {name: set(labels) for name, labels in SCRAPED.items()}
    for family in text_string_to_metric_families(page.body.decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        suffixes = ("_bucket", "_sum", "_count") if family.type == "histogram" else ("",)
        for suffix in suffixes:
            found.setdefault(name + suffix, {"job", "instance"})
        for sample in family.samples:
            found.setdefault(sample.name, {"job", "instance"}).update(sample.labels)
    # those that have no samples without a queue, a broken service or a Redis
    found["keyrelay_redis_up"] = {"job", "instance"}
    found["keyrelay_queue_seconds_bucket"] |= {"le", "service"}
    found["keyrelay_service_healthy"] |= {"service"}
    return found


async def test_every_metric_that_is_asked_for_is_there(scraped: dict[str, set[str]]) -> None:
    """By its whole name, with the labels that are selected and grouped by."""
    for expression in expressions():
        metrics = list(read(expression))
        assert metrics, expression
        for name, labels in metrics:
            assert name in scraped, f"{name} in {expression}"
            assert labels <= scraped[name], f"{labels} of {name} in {expression}"
        known = set.union(*(scraped[name] for name, _ in metrics))
        assert grouped_labels(expression) <= known, expression


async def test_every_metric_of_ours_is_shown_or_watched(scraped: dict[str, set[str]]) -> None:
    """What nobody looks at need not be counted."""
    asked = {name for expression in expressions() for name, _ in read(expression)}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in scraped}
    ours = {name for name in families if name.startswith("keyrelay_")}
    looked_at = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert ours - looked_at <= {"keyrelay_key_last_used_timestamp_seconds"}


def test_the_alerts_name_each_trouble_once() -> None:
    """With a severity, a summary and something to do."""
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) >= 10
    for rule in rules():
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description"}
        labels = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        by = grouped_labels(rule["expr"])
        assert labels <= (by or {"instance"})


def test_the_alerts_cover_what_goes_wrong() -> None:
    """Errors, latency, key age, disk, limits, health."""
    asked = " ".join(rule["expr"] for rule in rules())
    for part in ("errors_total", "seconds_bucket", "key_age", "disk_free", "limit_", "healthy"):
        assert part in asked


def test_the_panels_lie_side_by_side() -> None:
    """None over another, none without a title, none beyond the width."""
    taken: set[tuple[int, int]] = set()
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert panel["title"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells


def test_prometheus_finds_both_ways_in() -> None:
    """The file of rules beside it, and the default ports of the settings."""
    loaded = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert [(FOLDER / name).exists() for name in loaded["rule_files"]] == [True]
    assert len({job["job_name"] for job in loaded["scrape_configs"]}) == 2
