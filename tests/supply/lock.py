"""Reads the lock files: which packages, in which version, of which files."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent.parent
LOCK: Final = ROOT / "requirements.lock"
BACKEND: Final = ROOT / "tests/supply/backend.lock"
HEAD: Final = re.compile(r"([\w.-]+)==([^\s;]+)(?: *; *(.*?))? \\")

LICENCES: Final = {
    "aiosqlite": "MIT",
    "async-timeout": "Apache-2.0",
    "certifi": "MPL-2.0",
    "deprecated": "MIT",
    "h11": "MIT",
    "hiredis": "MIT",
    "httpx": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "markdown-it-py": "MIT",
    "mdurl": "MIT",
    "pyyaml": "MIT",
    "rich": "MIT",
    "setuptools": "MIT",
    "uvloop": "MIT OR Apache-2.0",
}
"""Of those that don't say it as an SPDX expression; a test compares it with what they do say."""


class Pinned(NamedTuple):
    """One entry. `hashes`: SHA-256 of each of its files; `where`: its marker."""

    name: str
    version: str
    hashes: tuple[str, ...]
    where: str = ""

    @property
    def purl(self) -> str:
        """Its name among all packages there are."""
        return f"pkg:pypi/{self.name}@{self.version}"

    @property
    def licence(self) -> str:
        """As an SPDX expression."""
        return LICENCES.get(self.name) or metadata.metadata(self.name)["License-Expression"]

    @property
    def needs(self) -> set[str]:
        """The names that it asks for; of its extras those that pyproject.toml takes."""
        taken = {extra for one in project()["project"]["dependencies"] for extra in extras(one)}
        told = (one.partition(";") for one in self.asks_for)
        wanted = [(name, set(re.findall(r"extra == .([\w-]+)", where))) for name, _, where in told]
        return {name_of(name) for name, only in wanted if not only or only & taken}

    @property
    def asks_for(self) -> list[str]:
        """Its requirements; nothing where it is for another Python, or another system."""
        try:
            return metadata.requires(self.name) or []
        except metadata.PackageNotFoundError:
            assert self.where, self.name
            return []


def name_of(requirement: str) -> str:
    """In the form of the index: lower case, dashes."""
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def extras(requirement: str) -> list[str]:
    """Those in its brackets."""
    found = re.search(r"\[([\w,-]+)\]", requirement)
    return found[1].split(",") if found else []


def pinned(path: Path = LOCK) -> list[Pinned]:
    """Every entry, by name and version. A name may come twice, with two markers."""
    found = []
    for entry in re.split(r"\n(?=\S)", path.read_text().strip()):
        head = HEAD.match(entry)
        assert head is not None, entry
        hashes = tuple(sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)))
        found.append(Pinned(name_of(head[1]), head[2], hashes, head[3] or ""))
    return sorted(found)


def project() -> dict[str, Any]:
    """What pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())
