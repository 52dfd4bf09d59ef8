"""A run as JSON: everything that was measured, and on what."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.figures import Figures
from bench.reach import Goal
from bench.room import HERE, MissingError, bench_python, program
from bench.summary import Row, Sample

FOLDER = HERE / "results"
LATEST = FOLDER / "latest.json"


@dataclass(frozen=True, slots=True)
class Result:
    """All of one run; `skipped` says in a sentence each what is left out."""

    made: datetime
    seconds: int
    samples: Sequence[Sample]
    rows: Sequence[Row]
    figures: Figures
    goals: Sequence[Goal]
    skipped: Sequence[str]


def as_json(result: Result) -> str:
    """Numbers with four significant digits: more would be noise."""
    data = {
        "made": result.made.isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "seconds": result.seconds,
        "rows": [_fields(row) for row in result.rows],
        "goals": [{**_fields(goal), "verdict": goal.verdict} for goal in result.goals],
        "figures": _rounded(dataclasses.asdict(result.figures)),
        "skipped": list(result.skipped),
        "rounds": _rounds(result.samples),
    }
    return json.dumps(data, indent=1) + "\n"


def write(result: Result, whole: bool) -> Path:
    """Writes it under its date; a whole run is the latest too. The path that was written last."""
    FOLDER.mkdir(exist_ok=True)
    paths = [FOLDER / f"{result.made:%Y-%m-%d-%H%M%S}.json", *([LATEST] if whole else [])]
    for path in paths:
        path.write_text(as_json(result))
    return paths[-1]


def _rounds(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """The CPU of every round, by server and case."""
    found: dict[str, list[float]] = {}
    for one in samples:
        found.setdefault(f"{one.server} {one.case}", []).append(float(f"{one.cpu:.4g}"))
    return found


def _fields(one: Row | Goal) -> dict[str, object]:
    return {name: _rounded(value) for name, value in dataclasses.asdict(one).items()}


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def machine() -> Mapping[str, object]:
    """What the numbers depend on; nothing that tells whose machine it is."""
    return {
        "cpus": os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """The versions of what was measured, as far as they are installed."""
    found = {name: _package(name) for name in ("uvicorn", "httptools", "uvloop")}
    found["nginx"] = _said("nginx", "-v")
    found["varnish"] = _said("varnishd", "-V")
    found["wrk"] = _said("wrk", "-v")
    found["litellm"] = _in_bench("litellm")
    found["portkey"] = _portkey()
    return {name: text for name, text in found.items() if text}


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _said(name: str, option: str) -> str:
    """The first thing like a version in what the program says."""
    try:
        done = subprocess.run([program(name), option], capture_output=True, text=True, check=False)
    except MissingError:
        return ""
    words = (done.stdout + done.stderr).replace("(", " ").replace("/", " ").split()
    found = (word.removeprefix("varnish-") for word in words if any(c.isdigit() for c in word))
    return next(found, "")


def _in_bench(name: str) -> str:
    try:
        python = bench_python(name)
    except MissingError:
        return ""
    asked = f"import importlib.metadata as m; print(m.version({name!r}))"
    done = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _portkey() -> str:
    about = HERE / "node_modules" / "@portkey-ai" / "gateway" / "package.json"
    return str(json.loads(about.read_text())["version"]) if about.exists() else ""
