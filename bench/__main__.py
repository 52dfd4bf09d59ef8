"""`python -m bench`: measures what is installed, side by side, and prints one table."""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from bench import figures, matter, reach, results, table, upstreams
from bench.case import Bodies, Site
from bench.peers import SITES
from bench.results import Result
from bench.room import ROOT, MissingError, Room, bench_python, environment, free_port, program
from bench.rounds import Measuring, Stage, measure
from bench.running import BrokenError, running
from bench.summary import Sample, summarise

FLOOR = "uvicorn"
"""All else is told as a multiple of it, so it is always measured."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the run is to measure."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    what = f"cases and figures ({', '.join(figures.NAMES)}) with commas, * stands for anything"
    parser.add_argument("--only", help=f"{what}: hit,forward,sse*,latency")
    parser.add_argument("--servers", help="servers with commas, * stands for anything: keyrelay*")
    parser.add_argument("--rounds", type=int, default=3, help="how often each case is measured")
    parser.add_argument("--seconds", type=int, default=3, help="how long each measuring takes")
    return parser.parse_args(given)


def wanted(names: str | None, name: str) -> bool:
    """Whether a name is among those that were asked for."""
    return names is None or any(fnmatch.fnmatch(name, one) for one in names.split(","))


@dataclass
class Words:
    """Says what happens while it happens, and keeps what was left out."""

    skipped: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        if text.startswith("skipped "):
            self.skipped.append(text.removeprefix("skipped "))
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def room() -> Iterator[Room]:
    """A directory for this run, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="keyrelay-bench-") as directory:
        yield Room(Path(directory), free_port(), free_port(), free_port())


def allow_files() -> None:
    """A thousand streams need two thousand open files in the proxy; the servers inherit this."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def sites(asked: argparse.Namespace, here: Room, bodies: Bodies, words: Words) -> Iterator[Site]:
    """What is asked for and installed, with the cases that are asked for."""
    for name, build in SITES.items():
        if not wanted(asked.servers, name) and name != FLOOR:
            continue
        try:
            site = build(here, bodies)
        except MissingError as missing:
            words.say(f"skipped {name}: {missing}")
            continue
        cases = tuple(c for c in site.cases if name == FLOOR or wanted(asked.only, c.name))
        if cases:
            yield replace(site, cases=cases)


def rounds(asked: argparse.Namespace, here: Room, bodies: Bodies, words: Words) -> list[Sample]:
    """Starts all servers, measures all cases in turns."""
    with contextlib.ExitStack() as stack:
        stages = []
        for site in sites(asked, here, bodies, words):
            try:
                stages.append(Stage(site, stack.enter_context(running(site.program))))
            except BrokenError as broken:
                words.say(f"skipped {site.name}: {broken}")
        how = Measuring(asked.seconds, asked.rounds, here.origin)
        return list(measure(stages, how, words.say))


def run(asked: argparse.Namespace, words: Words) -> Result:
    """Everything that was asked for: the figures first, while no other server takes memory."""
    with room() as here, contextlib.ExitStack() as stack:
        bodies = matter.write_bodies(here.folder("bodies"))
        for upstream in (upstreams.files(here), upstreams.origin(here)):
            stack.enter_context(running(upstream))
        if upstreams.authority(here) is None:
            words.say("skipped forward-tls: trustme is not installed in .venv-bench")
        ours = wanted(asked.servers, "keyrelay")
        names = tuple(n for n in figures.NAMES if ours and wanted(asked.only, n))
        few = figures.Asked(names, asked.rounds, asked.seconds)
        found = figures.measure(here, bodies, few, words.say)
        samples = rounds(asked, here, bodies, words)
    rows = summarise(samples)
    goals = reach.goals(rows, found)
    made = datetime.now(UTC)
    return Result(made, asked.seconds, samples, [*rows.values()], found, goals, words.skipped)


def picture(result: Path, words: Words) -> None:
    """Draws it beside the JSON, where matplotlib is installed."""
    try:
        python = bench_python("matplotlib")
    except MissingError as missing:
        words.say(f"no picture: {missing}")
        return
    command = [python, "-m", "bench.plot", str(result), str(result.with_suffix(".png"))]
    subprocess.run(command, check=True, cwd=ROOT, env=environment(PYTHONPATH=str(ROOT)))


def main() -> None:
    """Runs, prints, writes; ends with a word where nothing can be measured."""
    asked, words = arguments(), Words()
    try:
        for needed in ("wrk", "nginx"):
            program(needed)
    except MissingError as missing:
        sys.exit(f"bench: {missing}; on Debian: apt-get install wrk nginx varnish")
    allow_files()
    result = run(asked, words)
    whole = asked.only is None and asked.servers is None
    written = results.write(result, whole)
    print(table.rows(result.rows), end="\n\n")
    print(table.goals([goal for goal in result.goals if whole or goal.value is not None]))
    for line in [*figures.sentences(result.figures), *(f"skipped {one}" for one in words.skipped)]:
        print(line)
    if whole:
        picture(written, words)
    print(f"written to {written.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
