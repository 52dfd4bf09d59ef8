"""The list of the examples is whole, and every example says how to run it."""

from __future__ import annotations

import re

import pytest

from tests.support.examples import EXAMPLES

SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))


def test_every_example_is_listed() -> None:
    """The README names each example, and nothing else."""
    linked = re.findall(
        r"^\| \[[^]]+\]\(([^)]+)\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE
    )
    folders = (
        "deploy/keyrelay.service",
        "deploy/cluster/compose.yaml",
        "deploy/kubernetes/keyrelay.yaml",
        "monitoring/prometheus.yml",
        "page/index.html",
    )
    assert sorted(linked) == sorted([*SCRIPTS, *folders])
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} - {"__pycache__"} == {
        one.partition("/")[0] for one in folders
    }


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_says_how_to_run_it(name: str) -> None:
    """The header comment holds the command."""
    header = (EXAMPLES / name).read_text().split('"""')[1]
    assert re.search(rf"^    .*python examples/{re.escape(name)}", header, re.MULTILINE)
