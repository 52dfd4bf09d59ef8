"""The rules of the house that a reviewer would have to remember."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("proxy/**/*.py"), *ROOT.glob("vault/**/*.py")])

(WORDS, GRAMMAR, FACTS, RULES, RECORDS, MACHINES, COMPOSITIONS, SPINE, EDGES, ASSEMBLY, START) = (
    range(11)
)

FLOORS = {
    "proxy": WORDS,
    "proxy.errors": WORDS,
    "proxy.causes": WORDS,
    "proxy.clock": WORDS,
    "proxy.messages": WORDS,
    "proxy.reach": WORDS,
    "proxy.addresses": WORDS,
    "proxy.uris": WORDS,
    "proxy.memo": WORDS,
    "proxy.alarm": WORDS,
    "proxy.leaks": WORDS,
    "proxy.trace": WORDS,
    "proxy.turns": WORDS,
    "proxy.heap": WORDS,
    "proxy.discretion": GRAMMAR,
    "proxy.call": GRAMMAR,
    "proxy.destinations": GRAMMAR,
    "proxy.limits.grammar": GRAMMAR,
    "proxy.services": FACTS,
    "proxy.grant": RULES,
    "proxy.narrowing": RULES,
    "proxy.fields": RULES,
    "proxy.injection": RULES,
    "proxy.cors": RULES,
    "proxy.problems": RULES,
    "proxy.header": RULES,
    "proxy.framing": RULES,
    "proxy.forwarded": RULES,
    "proxy.hosts": RULES,
    "proxy.fair": RULES,
    "proxy.shown": RULES,
    "proxy.wrongs": RULES,
    "proxy.refusal": MACHINES,
    "proxy.certificate": MACHINES,
    "proxy.catalogue": RULES,
    "proxy.record": RECORDS,
    "proxy.redisurl": GRAMMAR,
    "proxy.loads": GRAMMAR,
    "proxy.engine": RECORDS,
    "proxy.database": RECORDS,
    "proxy.config": MACHINES,
    "proxy.limits": MACHINES,
    "proxy.network": MACHINES,
    "proxy.authentication": MACHINES,
    "proxy.authorization": MACHINES,
    "proxy.routing": MACHINES,
    "proxy.inbound": MACHINES,
    "proxy.bounds": MACHINES,
    "proxy.remembered": MACHINES,
    "proxy.outage": MACHINES,
    "proxy.cycle": MACHINES,
    "proxy.door": MACHINES,
    "proxy.guesses": MACHINES,
    "proxy.familiar": MACHINES,
    "proxy.feeding": MACHINES,
    "proxy.patience": MACHINES,
    "proxy.logs": MACHINES,
    "proxy.usage": MACHINES,
    "proxy.trail": MACHINES,
    "proxy.upstream.seam": MACHINES,
    "proxy.upstream": COMPOSITIONS,
    "proxy.cache": COMPOSITIONS,
    "proxy.carrying": COMPOSITIONS,
    "proxy.reply": COMPOSITIONS,
    "proxy.protocol": COMPOSITIONS,
    "proxy.threshold": COMPOSITIONS,
    "proxy.health": COMPOSITIONS,
    "proxy.traces": COMPOSITIONS,
    "proxy.reload": COMPOSITIONS,
    "proxy.gateway": SPINE,
    "proxy.shortcut": SPINE,
    "proxy.signin": SPINE,
    "proxy.workers": SPINE,
    "proxy.admin.answers": SPINE,
    "proxy.asgi": EDGES,
    "proxy.pages": EDGES,
    "proxy.way": EDGES,
    "proxy.health.pages": EDGES,
    "proxy.admin": EDGES,
    "proxy.metrics": EDGES,
    "proxy.orderly": EDGES,
    "proxy.demo": EDGES,
    "proxy.cli": EDGES,
    "proxy.app": ASSEMBLY,
    "proxy.cli.server": ASSEMBLY,
    "proxy.cli.cache": ASSEMBLY,
    "proxy.cli.serve": START,
    "proxy.start": START,
}
"""A room is a file or a package; the longest name that fits a module is its room."""


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def room(name: str) -> str:
    fitting = [one for one in FLOORS if name == one or name.startswith(one + ".")]
    return max(fitting, key=len, default="")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_only_go_downwards() -> None:
    """A room imports lower floors only; rooms on one floor meet through Protocols."""
    wrong = []
    for path in FILES:
        here = room(module(path))
        for name in imports(path) if here not in ("", "proxy") else ():
            there = room(name)
            if there not in ("", here, "proxy") and FLOORS[there] >= FLOORS[here]:
                wrong.append(f"{module(path)} imports {name}")
    assert wrong == []


def test_every_file_has_a_floor() -> None:
    """A new room is a new row."""
    lost = [module(path) for path in FILES if module(path).startswith("proxy.")]
    assert [name for name in lost if room(name) in ("", "proxy")] == []


def test_the_vault_knows_nothing_of_the_proxy_and_has_one_front_door() -> None:
    """`vault` never imports `proxy`; `proxy` enters by `vault` alone."""
    wrong = []
    for path in FILES:
        for name in imports(path):
            if module(path).startswith("vault") and name.split(".")[0] == "proxy":
                wrong.append(f"{module(path)} imports {name}")
            if module(path).startswith("proxy") and name.startswith("vault."):
                member = name.split(".")[1]
                if (ROOT / "vault" / f"{member}.py").exists() and name.count(".") > 1:
                    wrong.append(f"{module(path)} imports {name}")
    assert wrong == []


@pytest.mark.parametrize(
    ("call", "allowed"),
    [
        (".reveal()", {"proxy.injection", "vault.secret"}),
        ("time.time(", {"proxy.clock"}),
        ("time.monotonic(", {"proxy.clock"}),
        ("datetime.now(", set()),
        ("os.environ", {"proxy.cli.desk"}),
        ("create_connection(", {"proxy.network"}),
        ("AsyncClient(", set()),
        ("getaddrinfo(", {"proxy.network"}),
        ("sock_connect(", {"proxy.network"}),
        ("open_connection(", set()),
        ("urlopen(", set()),
        ("import requests", set()),
        ("follow_redirects=True", set()),
        ("HTTPConnection(", {"proxy.traces.collector"}),
        ("HTTPSConnection(", {"proxy.traces.collector"}),
    ],
)
def test_some_calls_have_one_place(call: str, allowed: set[str]) -> None:
    """Secrets are read in one file, time and environment too, and one dialler connects."""
    found = {module(path) for path in FILES if call in path.read_text()}
    assert found <= allowed


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def statements(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    documented = ast.get_docstring(node) is not None
    first = node.body[1:] if documented else node.body
    return (node.end_lineno or 0) - first[0].lineno + 1 if first else 0


def test_files_and_functions_stay_small() -> None:
    """No file over 400 lines, no function over 40, the median below 10."""
    long_files = [module(path) for path in FILES if len(path.read_text().splitlines()) > 400]
    lengths = {
        f"{module(path)}.{node.name}": statements(node)
        for path in FILES
        for node in functions(path)
    }
    assert long_files == []
    assert [name for name, length in lengths.items() if length > 40] == []
    assert sorted(lengths.values())[len(lengths) // 2] < 10


def test_every_module_says_its_one_job() -> None:
    """A module begins with a docstring."""
    silent = [module(path) for path in FILES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []
