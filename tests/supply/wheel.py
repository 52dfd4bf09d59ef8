"""Packs the wheel so that who packs it again gets the same octets: `make wheel`.

What git knows is copied into a folder of its own with fixed modes, so that neither a umask nor what
an earlier build left can be seen; times are SOURCE_DATE_EPOCH, or the last commit's. What is left
is the version of setuptools, pinned with its hash, and of zlib.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.supply.lock import ROOT

PARTS: Final = ("proxy", "vault", "pyproject.toml", "README.md", "LICENSE")
BUILD: Final = (
    "import os, sys; from setuptools import build_meta; os.umask(0o022); "
    "out = os.dup(1); os.dup2(2, 1); name = build_meta.build_wheel(sys.argv[1]); "
    "os.write(out, name.encode())"
)


def sources(root: Path) -> list[str]:
    """The files that are packed, or say how."""
    told = subprocess.check_output(["git", "ls-files", "-z", *PARTS], cwd=ROOT, text=True)
    return [name for name in told.split("\0") if name and (root / name).exists()]


def epoch() -> str:
    """Unix seconds that every file of the wheel has."""
    said = os.environ.get("SOURCE_DATE_EPOCH")
    last = ["git", "log", "-1", "--format=%ct"]
    return said or subprocess.check_output(last, cwd=ROOT, text=True).strip()


def lay_out(folder: Path, root: Path = ROOT) -> None:
    """The sources, with the same modes everywhere."""
    for name in sources(root):
        there = folder / name
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, there)
        there.chmod(0o644)


def pack(out: Path, root: Path = ROOT) -> Path:
    """The wheel, in a folder that is there. `root`: a copy of the sources."""
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), root)
        told = subprocess.run(
            [sys.executable, "-c", BUILD, str(out.resolve())],
            cwd=folder,
            env={**os.environ, "SOURCE_DATE_EPOCH": epoch()},
            capture_output=True,
            text=True,
            check=False,
        )
    if told.returncode:
        sys.exit(told.stderr)
    return out / told.stdout


def digest(wheel: Path) -> str:
    """SHA-256, as a lock file writes it."""
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


if __name__ == "__main__":
    place = ROOT / "build"
    place.mkdir(exist_ok=True)
    made = pack(place)
    print(f"{made.relative_to(ROOT)}  sha256:{digest(made)}")
