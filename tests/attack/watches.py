"""What the suite's own watches counted: who dialled, and where keys and tokens were looked for.

Each test is watched anyway (`tests/conftest.py`); here the suite runs with the counting told.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from tests.attack.outcome import Outcome
from tests.conftest import TALLY


async def watch(paths: str) -> tuple[int, Counter[str]]:
    """The exit code of these tests, and what was seen in all of them together."""
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        words = ("-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *paths.split())
        own = os.environ | {TALLY: folder}
        process = await asyncio.create_subprocess_exec(sys.executable, *words, env=own)
        code = await process.wait()
        for path in Path(folder).glob("*.json"):
            seen.update(json.loads(path.read_text()))
    return code, seen


async def outcomes(paths: str = "tests") -> AsyncIterator[Outcome]:
    """A row for each watch. A test that fails for another reason is told, and is no finding."""
    code, seen = await watch(paths)
    if code not in (0, 1):
        raise RuntimeError(f"pytest ended with {code}")
    failed = ", of which some failed" if code else ""
    yield Outcome(
        "connections and look-ups past the dialler",
        seen["dials"],
        "dials and look-ups",
        seen["past"],
        f"watched in {seen['tests']:,} tests{failed} and in each process that they start",
    )
    yield Outcome(
        "keys and tokens outside",
        seen["secrets"],
        "keys and tokens",
        seen["leaks"],
        f"looked for, in whatever form, in {seen['files']:,} files and {seen['words']:,} outputs, "
        f"logs and environments: {seen['octets'] / 1e6:,.0f} MB",
    )
