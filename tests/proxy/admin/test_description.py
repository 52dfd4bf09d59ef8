"""The admin API is what its description says: schemathesis tries it over real sockets."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import EngineFinished, ScenarioFinished

from proxy.admin.openapi import ALL, document
from proxy.admin.operations import OPERATIONS
from tests.support.command import command
from tests.support.process import served

SEED = 20261121
EXAMPLES = 12
TAKEN = ["2xx", "401", "403", "404", "409", "422"]
"""422 beside the usual: which parts a key has, and which hosts, depends on its service; that a time
is ahead, on the day."""

REFUSED = ["400", "404", "405", "413", "415", "422", "431"]
"""413 and 431 beside the usual: what is far too long is not even read."""


def settings(token: str) -> SchemathesisConfig:
    return SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "headers": {"Authorization": f"Bearer {token}"},
            "generation": {"max-examples": EXAMPLES, "database": "none"},
            "checks": {
                "positive_data_acceptance": {"expected-statuses": TAKEN},
                "negative_data_rejection": {"expected-statuses": REFUSED},
            },
        }
    )


def tried(url: str, token: str) -> tuple[list[str], set[str]]:
    """What is wrong, and which operations were called at all."""
    config = settings(token)
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=config)
    called: set[str] = set()
    wrong: list[str] = []
    for event in from_schema(schema).execute():
        if isinstance(event, ScenarioFinished):
            cases = event.recorder.cases.values()
            called |= {case.value.operation.label for case in cases}
            wrong += failures(event)
        if isinstance(event, EngineFinished):
            wrong += [str(event.stop_reason)] if event.stop_reason != "completed" else []
    return wrong, called


def failures(event: ScenarioFinished) -> list[str]:
    return [
        f"{check.name}: {check.failure_info.failure} {check.failure_info.code_sample}"
        for checks in event.recorder.checks.values()
        for check in checks
        if check.failure_info is not None
    ]


async def test_the_api_is_what_it_says(tmp_path: Path) -> None:
    """No answer, status, type or method but those of /openapi.json; nothing unknown is taken."""
    data = tmp_path / "data"
    await command(data, "init")
    (data / "keys.yaml").write_text("limits: {wrong_tokens: null}\n")  # it tries many on purpose
    issued = await command(data, "token", "issue", "ada", "--role", "admin")
    async with served(data) as up:
        wrong, called = await asyncio.to_thread(tried, up.url, issued.out.strip())
    assert not wrong, "\n\n".join(wrong)
    assert called == {f"{one.method} {one.path}" for one in ALL}
    assert not any("Traceback" in line for line in up.said)


def test_every_refusal_is_described() -> None:
    """What can't be brought about at will too: a body that does not come, a fault of ours."""
    paths = json.loads(document())["paths"]
    said = {one.name: paths[one.path][one.method.lower()]["responses"] for one in ALL}
    assert all("500" in responses for responses in said.values())
    assert {name for name in said if "408" in said[name]} == {one.name for one in ALL if one.body}


def test_the_page_lists_every_operation() -> None:
    """docs/admin.md, in the words of the table that answers."""
    page = (Path(__file__).parents[3] / "docs/admin.md").read_text()
    rows = re.findall(r"^\| `([A-Z]+ /\S+)` \| (.+) \|$", page, re.MULTILINE)
    assert rows == [(f"{one.method} {one.path}", one.does) for one in OPERATIONS]
