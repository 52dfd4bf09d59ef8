"""What is shipped: pinned, listed, licensed, and packed the same by everybody."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tests.supply import audit, sbom
from tests.supply.lock import BACKEND, LICENCES, LOCK, ROOT, Pinned, name_of, pinned, project
from tests.supply.wheel import digest, lay_out, pack, sources
from tests.support.process import environment

FREE = {"MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "PSF-2.0", "MPL-2.0"}
"""Licences under which keyrelay may be given on as it is."""

SAID = {
    "MIT License": "MIT",
    "BSD License": "BSD-3-Clause",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Apache Software License": "Apache-2.0",
}
LOCKS = sorted(ROOT.glob("**/[a-z]*.lock"))
LOCKS = [path for path in LOCKS if not any(part.startswith(".") for part in path.parts)]


def test_the_lock_pins_what_is_asked_for_and_what_builds_it() -> None:
    """Every dependency, and exactly the build backend of pyproject.toml."""
    names = {one.name for one in pinned(LOCK)}
    assert {name_of(one) for one in project()["project"]["dependencies"]} <= names
    [backend] = pinned(BACKEND)
    assert project()["build-system"]["requires"] == [f"{backend.name}=={backend.version}"]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_entry_of_every_lock_has_hashes_and_no_place(path: Path) -> None:
    """One version each, SHA-256 of its files, and nothing of where they came from."""
    assert [one.name for one in pinned(path) if not one.hashes] == []
    assert re.findall(r"https?:|index-url|find-links|file:|--trusted", path.read_text()) == []


def test_what_is_installed_from_a_lock_asks_for_hashes() -> None:
    """In the Makefile and the image: none takes a lock without, none builds with what it finds."""
    for path in (ROOT / "Makefile", ROOT / "examples/deploy/Dockerfile"):
        text = path.read_text().replace("\\\n", " ")
        lines = [line for line in text.splitlines() if "pip install" in line]
        assert lines
        for line in lines:
            assert "--require-hashes" in line or "--no-build-isolation" in line, line


@pytest.mark.parametrize("one", pinned(), ids=lambda one: f"{one.name}-{one.version}")
def test_every_licence_is_what_the_package_says_and_may_be_given_on(one: Pinned) -> None:
    """Its SPDX expression, or the one in our list, which fits its classifiers."""
    assert set(re.findall(r"[\w.-]+", one.licence)) - {"AND", "OR"} <= FREE
    if one.where and not one.asks_for:
        return  # for another Python: not here to be asked
    about = metadata.metadata(one.name)
    if one.name in LICENCES:
        assert about["License-Expression"] is None
        kinds = [line.rpartition(":: ")[2] for line in about.get_all("Classifier", [])]
        assert set(one.licence.split(" OR ")) == {SAID[kind] for kind in kinds if kind in SAID} or (
            one.licence == about["License"]
        )


def test_the_bill_of_materials_has_every_package_once_and_knows_what_needs_what() -> None:
    """As the lock has it, with the same hashes; the same text each time."""
    told = json.loads(sbom.document())
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    parts = {one["purl"]: one for one in told["components"]}
    expected = {one.purl: one for one in [*pinned(), *pinned(BACKEND)]}
    assert parts.keys() == expected.keys()
    for purl, part in parts.items():
        assert [one["content"] for one in part["hashes"]] == list(expected[purl].hashes)
    needs = {one["ref"]: one["dependsOn"] for one in told["dependencies"]}
    assert {to for all_of in needs.values() for to in all_of} == {one.purl for one in pinned()}
    assert sbom.document() == sbom.document()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, set[str]]:
    """Two wheels of the same sources, whose files have other modes and times; and the sources."""
    root = tmp_path_factory.mktemp("sources")
    lay_out(root)
    found = []
    for number, mode in enumerate((0o600, 0o755)):
        for path in filter(Path.is_file, root.rglob("*")):
            path.chmod(mode)
            os.utime(path, (10**9 * number, 10**9 * number))
        found.append(pack(tmp_path_factory.mktemp("out"), root))
    return found[0], found[1], set(sources(root))


def test_the_wheel_is_the_same_whoever_packs_it(packed: tuple[Path, Path, set[str]]) -> None:
    """Octet for octet."""
    one, other, _ = packed
    assert digest(one) == digest(other)


def test_the_wheel_has_all_that_runs_and_nothing_else(packed: tuple[Path, Path, set[str]]) -> None:
    """Every file of both packages (migrations, services, templates); no test, bench or example."""
    wheel, _, expected = packed
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {name for name in expected if name.startswith(("proxy/", "vault/"))}
    assert {Path(name).suffix for name in names} > {".yaml", ".html", ".css", ".js", ".py"}


def test_what_is_in_the_wheel_runs(packed: tuple[Path, Path, set[str]], tmp_path: Path) -> None:
    """Unpacked, before all else that is installed: `make fresh` does it in an environment."""
    zipfile.ZipFile(packed[0]).extractall(tmp_path / "there")
    own = environment() | {"PYTHONPATH": str(tmp_path / "there")}
    for words in (["init"], ["explain", "/proxy/openai/v1/models"]):
        command = [sys.executable, "-m", "proxy.cli", *words, "--data", str(tmp_path / "data")]
        assert said(command, tmp_path, own)
    where = [sys.executable, "-c", "import proxy, vault; print(proxy.__file__, vault.__file__)"]
    assert said(where, tmp_path, own).count(str(tmp_path / "there")) == 2


def said(command: list[str], folder: Path, own: dict[str, str]) -> str:
    """By a command that must succeed, in a folder that has nothing of ours."""
    pipe = subprocess.PIPE
    told = subprocess.run(command, check=False, cwd=folder, env=own, text=True, stdout=pipe)
    assert told.returncode == 0, command
    return told.stdout


FAULTY = {"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}
SKIPPED = {"name": "b", "version": "1", "skip_reason": "not found"}
SOUND = {"name": "c", "version": "1", "vulns": []}


@pytest.mark.parametrize(
    ("dependencies", "expected"),
    [
        ([SOUND, SKIPPED], (0, "clean: 1 of 2 packages")),
        ([SOUND, FAULTY], (1, "a 1: X-1, mended in 2")),
        ([SKIPPED], (0, "unreachable")),
    ],
)
def test_only_a_known_fault_fails_the_audit(dependencies: object, expected: object) -> None:
    """An index without advisories is said in one word."""
    assert audit.verdict(json.dumps({"dependencies": dependencies})) == expected


@pytest.mark.parametrize(
    "command", [["/nosuch/pip-audit"], [sys.executable, "-c", "raise SystemExit(1)"]]
)
def test_an_audit_that_could_not_ask_says_so(command: list[str]) -> None:
    """No tool, no network: the same word."""
    assert audit.verdict(audit.ask(command)) == (0, "unreachable")
