"""Writes docs/licences.md: under which terms stands what keyrelay runs on."""

from __future__ import annotations

from tests.supply.lock import pinned

BEGINNING = """# Licences

keyrelay is under the MIT licence ([LICENSE](../LICENSE)). Here is what it runs on, as
`requirements.lock` pins it, each with its licence as an SPDX expression. `make docs` writes this
page; `make sbom` tells the same, with hashes, to programs.

| package | version | licence |
|---|---|---|
"""


def document() -> str:
    """The page."""
    rows = [f"| {one.name} | {one.version} | {one.licence} |" for one in pinned()]
    return BEGINNING + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(document(), end="")
