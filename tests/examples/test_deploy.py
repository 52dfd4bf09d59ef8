"""What examples/deploy says, as far as it can be tried without a container engine or systemd."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from proxy.config import Config, load_config
from tests.support.process import served
from tests.support.programs import need
from tests.test_docs import check

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "examples/deploy"
UNIT = (DEPLOY / "keyrelay.service").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["keyrelay"]

WORST_EXPOSURE = 15
"""Tenths of the ten that systemd gives to a unit without any sandbox."""


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's lines, joined where they go on."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def setting(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


def grace() -> float:
    return Config().server.shutdown_grace


async def systemd_analyze(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    """On the unit with a command that is there: that of these tests."""
    program = need("systemd-analyze")
    there = Path(sys.executable).parent / "keyrelay"
    unit = tmp_path / "keyrelay.service"
    unit.write_text(UNIT.replace("/opt/keyrelay/bin/keyrelay", str(there)))
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        str(unit),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_systemd_knows_every_key_of_the_unit(tmp_path: Path) -> None:
    """No unknown key, no command that is not there."""
    code, said = await systemd_analyze(tmp_path, "verify", "--man=no")
    assert (code, said) == (0, "")


async def test_systemd_finds_the_sandbox_tight(tmp_path: Path) -> None:
    """By its own measure."""
    threshold = f"--threshold={WORST_EXPOSURE}"
    code, said = await systemd_analyze(tmp_path, "security", "--offline=true", threshold)
    assert code == 0, said[-200:]


def test_the_unit_runs_a_command_that_can_be_typed() -> None:
    """And gives calls in flight the time that the server gives them."""
    [start] = setting("ExecStart")
    check(start.replace("/opt/keyrelay/bin/", ""))
    [seconds] = setting("TimeoutStopSec")
    assert float(seconds) > grace()
    assert setting("ExecReload") == ["/bin/kill -HUP $MAINPID"]
    assert setting("StateDirectoryMode") == ["0700"]


def test_the_image_copies_what_is_there_and_runs_what_can_be_typed() -> None:
    """In two stages, as a user without a name to the host; nothing else goes in."""
    found = instructions()
    assert [name for name, _ in found].count("FROM") == 2
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    for name, text in found:
        if name == "COPY" and not text.startswith("--from"):
            for source in text.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored
        if name == "CMD":
            check(shlex.join(json.loads(text)))
    assert ("USER", "10001") in found
    assert ("STOPSIGNAL", "SIGTERM") in found


async def test_the_images_health_check_tells_a_server_that_is_ready(tmp_path: Path) -> None:
    """And one that is not there."""
    [text] = [text for name, text in instructions() if name == "HEALTHCHECK"]
    command = ast.literal_eval(text.partition(" CMD ")[2])
    async with served(tmp_path / "data") as server:
        asked = [word.replace("http://127.0.0.1:8000", server.url) for word in command[1:]]
        process = await asyncio.create_subprocess_exec(sys.executable, *asked)
        assert await process.wait() == 0
    process = await asyncio.create_subprocess_exec(
        sys.executable, *asked, stderr=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() != 0


def test_the_compose_file_fits_the_image() -> None:
    """Its paths are there; nothing is writable but the data; there is time to end."""
    assert (DEPLOY / COMPOSE["build"]["context"]).resolve() == ROOT
    assert (ROOT / COMPOSE["build"]["dockerfile"]).is_file()
    assert (COMPOSE["read_only"], COMPOSE["cap_drop"]) == (True, ["ALL"])
    assert float(COMPOSE["stop_grace_period"].removesuffix("s")) > grace()
    folders = dict(volume.split(":")[:2] for volume in COMPOSE["volumes"])
    image = dict(
        word.split("=") for name, text in instructions() if name == "ENV" for word in text.split()
    )
    assert folders["data"] == image["KEYRELAY_DATA"]
    config = Path(COMPOSE["environment"]["KEYRELAY_CONFIG"])
    [mounted] = [host for host, inside in folders.items() if inside == str(config.parent)]
    assert load_config(DEPLOY / mounted / config.name, {}).server.log_format == "json"


@pytest.mark.parametrize("name", ["keyrelay.service", "Dockerfile", "compose.yaml"])
def test_every_file_says_how_it_is_used(name: str) -> None:
    """At its top."""
    assert (DEPLOY / name).read_text().startswith("# ")
