"""Fuzzes the targets, guided by the code that each input reaches; `make fuzz` runs it.

    python -m tests.fuzz SECONDS [TARGET ...]

A row per target. An input that breaks a rule is written to tests/fuzz/corpus/TARGET/, where the
suite finds it from then on. What reaches new code is kept in build/fuzz/ for the next time.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.fuzz.corpus import FOLDER, seeds, words
from tests.fuzz.targets import TARGETS

_ROOT: Final = Path(__file__).parent.parent.parent
_BUILD: Final = _ROOT / "build/fuzz"
_LONGEST: Final = {"config": 2000, "destination": 9000, "familiar": 5000}
_INPUTS: Final = re.compile(r"stat::number_of_executed_units: *([0-9]+)")
_REACHED: Final = re.compile(r"cov: ([0-9]+) ft: [0-9]+ corp: ([0-9]+)/")


def main(given: list[str]) -> int:
    """1 where a rule was broken."""
    seconds, names = int(given[0]), given[1:] or list(TARGETS)
    print(f"{'target':12} {'inputs':>10} {'branches':>9} {'kept':>6}  found")
    return 1 if sum([_fuzz(name, seconds) for name in names]) else 0


def _fuzz(name: str, seconds: int) -> bool:
    """Runs one target in a process of its own; whether it broke a rule."""
    kept, found = _BUILD / name, FOLDER / name
    kept.mkdir(parents=True, exist_ok=True)
    for seed in seeds(name):
        (kept / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    before = set(found.iterdir())
    dictionary = _BUILD / f"{name}.words"
    dictionary.write_text("".join(map(_quoted, words(name))))
    options = [f"-max_total_time={seconds}", f"-max_len={_LONGEST.get(name, 600)}", "-timeout=10"]
    options += ["-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={found}/"]
    options += [f"-dict={dictionary}"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.guided", name, str(kept), *options],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    new = sorted(path.name for path in set(found.iterdir()) - before)
    _report(name, done.stderr, ", ".join(new) or "nothing")
    if done.returncode:
        print(done.stderr[-500:], done.stdout[-3000:], sep="\n")
    return bool(done.returncode)


def _quoted(word: str) -> str:
    """A line of a dictionary of libFuzzer's."""
    return '"' + "".join(f"\\x{octet:02x}" for octet in word.encode()) + '"\n'


def _report(name: str, log: str, found: str) -> None:
    inputs = _INPUTS.findall(log)
    reached = _REACHED.findall(log) or [("?", "?")]
    print(f"{name:12} {int(inputs[-1]) if inputs else 0:10,} {reached[-1][0]:>9}", end=" ")
    print(f"{reached[-1][1]:>6}  {found}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
