"""Installs the wheel into an environment of its own and lets it run: `make fresh`.

Nothing of the clone is in reach there: what is missing in the wheel is missing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path

from tests.supply.lock import LOCK, ROOT
from tests.supply.wheel import pack


def install(folder: Path) -> Path:
    """The folder of its commands."""
    venv.create(folder / "venv", with_pip=True)
    commands = folder / "venv/bin"
    pip = [str(commands / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", str(LOCK)], check=True, cwd=folder)
    subprocess.run([*pip, "--no-deps", "--no-index", str(pack(folder))], check=True, cwd=folder)
    return commands


def run(command: Path, data: Path) -> str:
    """What a server that has just been made says of its health."""
    own = {"PATH": os.environ["PATH"], "HOME": str(data.parent)}
    words = [str(command), "--data", str(data)]
    subprocess.run([*words, "init"], check=True, cwd=data.parent, env=own, stdout=sys.stderr)
    server = subprocess.Popen(
        [*words, "serve", "--port", "0"],
        cwd=data.parent,
        env={**own, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.stdout is not None
        lines = (re.search(r"listens on (http://[\d.:]+)", line) for line in server.stdout)
        url = next(found[1] for found in lines if found)
        with urllib.request.urlopen(f"{url}/health/ready", timeout=20) as answer:
            return str(answer.status)
    finally:
        server.terminate()
        server.communicate(timeout=30)


def main() -> int:
    """0 where it is ready."""
    with tempfile.TemporaryDirectory() as folder:
        said = run(install(Path(folder)) / "keyrelay", Path(folder) / "data")
    print(f"the wheel in a fresh environment is ready: {said}")
    return int(said != "200")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
