"""The rooms of the vault import only downwards; none reads a secret or the environment."""

from __future__ import annotations

import ast
from pathlib import Path

import vault

ROOT = Path(vault.__file__).parent
FLOORS = (
    {"errors", "secret", "bindings", "files"},
    {"records", "sealing", "sessions", "tokens", "tables", "keeper"},
    {"backupkey", "chain", "passphrase", "register"},
    {"registering"},
    {
        "anchor",
        "archive",
        "audit",
        "declared",
        "keyring",
        "lookups",
        "masterseal",
        "names",
        "postgres",
        "schema",
        "sqlite",
    },
    {"mastersource", "store", "keyrows"},
    {"datakeys", "held", "newkeys"},
    {"core"},
    {"freshness", "auditing", "keys", "issued", "places"},
    {"shortlived", "tenants", "importing", "declaring", "noting", "rotation", "backup", "moving"},
    {"vault"},
    {"opening", "restoring"},
)
PURE = {
    "archive",
    "bindings",
    "chain",
    "declared",
    "keyring",
    "names",
    "register",
    "sealing",
    "tokens",
}
FILES = [path for path in ROOT.glob("*.py") if path.stem != "__init__"]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def test_imports_only_go_downwards() -> None:
    """Every file stands on a floor and knows only those below."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    assert {path.stem for path in FILES} == set(floor)
    wrong = [
        f"{path.stem} imports {name}"
        for path in FILES
        for name in imported(path)
        if name.startswith("vault.") and floor.get(name[6:], -1) >= floor[path.stem]
    ]
    assert wrong == []


def test_the_pure_rooms_know_no_database_and_no_loop() -> None:
    """Rules can be tried without either."""
    wrong = [
        f"{path.stem} imports {name}"
        for path in FILES
        if path.stem in PURE
        for name in imported(path)
        if name.split(".")[0] in {"asyncio", "sqlalchemy", "alembic"}
    ]
    assert wrong == []


def test_the_vault_reveals_nothing_and_reads_no_environment() -> None:
    """`.reveal(` belongs to requests; the environment is handed in."""
    text = "".join(path.read_text() for path in FILES)
    assert not [word for word in (".reveal(", "os.environ", "time.time") if word in text]
