"""Asks for known faults of the pinned packages: `make audit`.

A network without the advisory service is said in one word, and nothing fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from tests.supply.lock import BACKEND, LOCK, ROOT

SECONDS: Final = 300


def ask(words: Sequence[str]) -> str:
    """What pip-audit says in JSON; nothing where it could not ask."""
    command = [*words, "--format", "json", "--require-hashes", "--disable-pip"]
    command += ["--progress-spinner", "off", *(f"--requirement={path}" for path in (LOCK, BACKEND))]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=ROOT
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def verdict(said: str) -> tuple[int, str]:
    """Exit code and words. An index without advisories skips every package."""
    try:
        found = json.loads(said)["dependencies"]
    except ValueError:
        return 0, "unreachable"
    asked = [one for one in found if "skip_reason" not in one]
    if not asked:
        return 0, "unreachable"
    told = [
        f"{one['name']} {one['version']}: {fault['id']}, mended in "
        f"{', '.join(fault['fix_versions']) or 'no release yet'}"
        for one in asked
        for fault in one["vulns"]
    ]
    return (1, "\n".join(told)) if told else (0, f"clean: {len(asked)} of {len(found)} packages")


if __name__ == "__main__":
    code, words = verdict(ask(sys.argv[1:]))
    print(words)
    sys.exit(code)
