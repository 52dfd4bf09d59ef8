"""Writes the bill of materials, as CycloneDX 1.6: `make sbom`.

It is made of the lock (names, versions, hashes of every file that may be installed) and what the
packages say of themselves (licence, what they need), without time and chance: one lock, one text.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tests.supply.lock import BACKEND, ROOT, Pinned, name_of, pinned, project

OUT: Final = ROOT / "build/keyrelay.cdx.json"


def component(one: Pinned, **more: str) -> dict[str, Any]:
    """One package; `hashes`: any of these files is it."""
    return {
        "type": "library",
        "bom-ref": one.purl,
        "name": one.name,
        "version": one.version,
        "purl": one.purl,
        "licenses": [{"expression": one.licence}],
        "hashes": [{"alg": "SHA-256", "content": each} for each in one.hashes],
        **more,
    }


def dependency(ref: str, names: Iterable[str], known: list[Pinned]) -> dict[str, Any]:
    """What one package needs, of those that are there."""
    wanted = set(names)
    return {"ref": ref, "dependsOn": [one.purl for one in known if one.name in wanted]}


def bill() -> dict[str, Any]:
    """All of it."""
    about, known, builds = project()["project"], pinned(), pinned(BACKEND)
    itself = {
        "type": "application",
        "bom-ref": f"pkg:pypi/{about['name']}@{about['version']}",
        "name": about["name"],
        "version": about["version"],
        "purl": f"pkg:pypi/{about['name']}@{about['version']}",
        "licenses": [{"expression": about["license"]}],
    }
    parts = [component(one) for one in known]
    parts += [component(one, scope="excluded", description="builds it") for one in builds]
    asked = map(name_of, about["dependencies"])
    needs = [dependency(itself["bom-ref"], asked, known)]
    needs += [dependency(one.purl, one.needs, known) for one in known]
    content = {"metadata": {"component": itself}, "components": parts, "dependencies": needs}
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6"}
    return {**head, "serialNumber": serial.urn, "version": 1, **content}


def document() -> str:
    """As text."""
    return json.dumps(bill(), indent=1) + "\n"


if __name__ == "__main__":
    out = Path(sys.argv[1]) if sys.argv[1:] else OUT
    out.parent.mkdir(exist_ok=True)
    out.write_text(document())
    print(f"{out}: {len(bill()['components'])} components")
