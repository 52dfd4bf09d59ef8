"""Counts the instructions that a request costs: `python -m bench.instructions`; needs valgrind.

CPU time says what this machine paid just now, with all that slowed it down. Instructions say what
the program asked of it, without the kernel's share: two counts differ by a percent or two, whatever
else runs. A server is many times slower while it is counted, and takes a minute to start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import matter, upstreams
from bench.case import Bodies, Case, Site, verify
from bench.load import Load
from bench.paced import Paced, octets
from bench.peers import keyrelay, uvicorn
from bench.results import FOLDER
from bench.room import MissingError, Room, environment, free_port, program
from bench.running import BrokenError, running

WARM, COUNTED = 320, 800
START_SECONDS = 600
REST_SECONDS = 3.0
"""What is written in the background after the last answer is counted too."""

_TOTAL = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)


def counted(dumps: Iterator[str]) -> int:
    """The instructions of all threads, from the files that callgrind has dumped."""
    return sum(int(found[1]) for text in dumps if (found := _TOTAL.search(text)))


def sites(room: Room, bodies: Bodies) -> Iterator[Site]:
    """The floor, and keyrelay with less and with more switched on."""
    yield uvicorn.site(room, bodies)
    yield keyrelay.quiet_site(room, bodies)
    usual = keyrelay.site(room, bodies)
    yield dataclasses.replace(
        usual, cases=tuple(case for case in usual.cases if case.name in ("hit", "forward"))
    )
    yield keyrelay.limited_site(room, bodies)


@contextlib.contextmanager
def watched(site: Site) -> Iterator[tuple[int, Path]]:
    """The server under callgrind, once it answers; its process, and where its counts are dumped."""
    here = site.program
    out = here.folder / "callgrind.out"
    valgrind = (program("valgrind"), "--tool=callgrind", "--separate-threads=yes")
    command = [*valgrind, "--fair-sched=yes", f"--callgrind-out-file={out}", *here.command]
    with (here.folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=here.folder,
            env=environment(**here.environ, PYTHONHASHSEED="0"),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _await_answer(here.port, process)
        yield process.pid, out
    finally:
        process.kill()
        process.wait()


def _await_answer(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(connection),
        ):
            connection.request("GET", "/")
            connection.getresponse().read()
            return
        time.sleep(0.5)
    raise BrokenError("the server did not start under valgrind")


def per_request(site: Site, case: Case) -> float:
    """Thousands of instructions."""
    with watched(site) as (pid, out):
        verify(site, case)
        _send(site.program.port, case.load, WARM)
        time.sleep(REST_SECONDS)
        _tell("-z", pid)
        _send(site.program.port, case.load, COUNTED)
        time.sleep(REST_SECONDS)
        _tell("-d", pid)
        time.sleep(REST_SECONDS)
        found = sorted(out.parent.glob(f"{out.name}.1*"))
        return counted(path.read_text(errors="replace") for path in found) / COUNTED / 1000


def _send(port: int, load: Load, requests: int) -> None:
    Paced(port, octets(load, port)).flood(requests, connections=16)


def _tell(what: str, pid: int) -> None:
    subprocess.run(
        [program("callgrind_control"), what, str(pid)], check=True, stdout=subprocess.DEVNULL
    )


def main() -> None:
    """Prints a line for each case, and keeps them."""
    rows: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="keyrelay-bench-") as directory:
        room = Room(Path(directory), free_port(), free_port(), free_port())
        bodies = matter.write_bodies(room.folder("bodies"))
        with running(upstreams.files(room)), running(upstreams.origin(room)):
            for site in sites(room, bodies):
                for case in site.cases:
                    count = rows[f"{site.name} {case.name}"] = round(per_request(site, case), 1)
                    ratio = count / rows["uvicorn bare"]
                    print(
                        f"{site.name:17} {case.name:8} {count:7.1f} k  {ratio:5.2f} x", flush=True
                    )
    (FOLDER / "instructions.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (MissingError, BrokenError) as error:
        sys.exit(f"bench.instructions: {error}")
