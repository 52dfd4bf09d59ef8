"""The log: one line a call, nothing in it that steers a terminal, and never in the loop's way."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy import logs
from proxy.logs import (
    JSON,
    Form,
    Handler,
    Log,
    LogSettings,
    Told,
    as_console,
    logging_to,
    write_line,
)
from tests.support.records import CALL

LOGGED = CALL._replace(key="", answered=None, address="192.0.2.1")
PIPE = 4096
HOLDER = """
import fcntl, sys
with open(sys.argv[1], "w") as turns:
    fcntl.lockf(turns, fcntl.LOCK_EX)
    print("mine", flush=True)
    sys.stdin.read()
"""
STEERING = "red\x1b[31m\x07\r\n\x9b2J\u202e\u2028end\x7f"


class Pipe:
    """A pipe that is read only when somebody asks."""

    def __init__(self) -> None:
        self.source, self.sink = os.pipe()
        fcntl.fcntl(self.sink, fcntl.F_SETPIPE_SZ, PIPE)

    def read_all(self) -> list[str]:
        """Everything, once nobody writes any more."""
        os.close(self.sink)
        octets = b""
        while more := os.read(self.source, 65536):
            octets += more
        return octets.decode().splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.source)


def test_a_call_is_one_json_object_with_its_facts(pipe: Pipe) -> None:
    """Names and numbers; the token by its name, never by its id."""
    log = Log(pipe.sink, JSON)
    log.call(LOGGED)
    log.close()
    [line] = pipe.read_all()
    assert json.loads(line) == {
        "timestamp": "2027-01-15T08:00:00.250Z",
        "level": "info",
        "event": "call",
        "id": "abc-1",
        "tenant": "default",
        "token": "laptop",
        "service": "openai",
        "host": "api.openai.com",
        "method": "POST",
        "status": 200,
        "code": "",
        "verdict": "stored",
        "cut": False,
        "total_ms": 250.0,
        "upstream_ms": 100.0,
        "waited_ms": 50.0,
        "received": 10,
        "sent": 2000,
        "address": "192.0.2.1",
    }


@pytest.mark.parametrize("form", [JSON, as_console(True)], ids=["json", "console"])
def test_what_steers_a_terminal_is_written_out(pipe: Pipe, form: Form) -> None:
    """C0, C1, line separators, turned reading order, half surrogate pairs: one line, plain."""
    log = Log(pipe.sink, form)
    log.call(LOGGED._replace(token=STEERING, host="\udc80"))
    log.add(Told(1.8e9, "warning", "keyrelay", STEERING + "\udc80", {"id": STEERING}))
    log.close()
    lines = pipe.read_all()
    assert len(lines) == 2
    for line in lines:
        plain = line.replace("\x1b[0m", "").replace("\x1b[", "", 40 if "\x1b[0m" in line else 0)
        assert not any(sign in plain for sign in "\x07\r\x9b\u202e\u2028\x7f")
        assert "\x1b[31m\\u0007" not in line
        assert "red" in line


def test_json_gives_back_the_very_text(pipe: Pipe) -> None:
    """What is escaped is escaped as JSON: a reader finds what was there."""
    log = Log(pipe.sink, JSON)
    log.call(LOGGED._replace(token=STEERING))
    log.close()
    [line] = pipe.read_all()
    assert line.isascii()
    assert json.loads(line)["token"] == STEERING


def test_people_get_the_call_in_front_and_no_empty_members(pipe: Pipe) -> None:
    """Without colours where nobody asked for them."""
    log = Log(pipe.sink, as_console(False))
    log.call(LOGGED)
    log.call(LOGGED._replace(status=0, host="", service=""))
    log.close()
    first, second = pipe.read_all()
    assert "200 POST api.openai.com" in first
    assert "token=laptop" in first
    assert "code=" not in first
    assert "gone POST -" in second
    assert "\x1b" not in first + second


def test_a_pipe_that_nobody_reads_holds_up_nobody(pipe: Pipe) -> None:
    """Lines beyond the queue are dropped, counted, and told once somebody reads again."""
    log = Log(pipe.sink, JSON, bound=50)
    for number in range(1000):
        log.call(LOGGED._replace(id=f"n{number}"))
    assert log.lost > 0
    lost = log.lost
    read = bytearray()
    while b"were lost" not in read:
        read += os.read(pipe.source, 65536)
    log.close()
    lines = [json.loads(line) for line in (read.decode() + "\n".join(pipe.read_all())).splitlines()]
    calls = [line for line in lines if line["event"] == "call"]
    assert sum(line.get("count", 0) for line in lines) == lost
    assert len(calls) + lost == 1000


def test_the_end_waits_for_no_reader() -> None:
    """Nobody takes the last lines: the server ends all the same."""
    pipe = Pipe()
    log = Log(pipe.sink, JSON)
    for _ in range(1000):
        log.call(LOGGED)
    log.close()
    assert log.lost == 0  # they wait to this very moment
    os.close(pipe.source)
    log.close()
    os.close(pipe.sink)
    assert log.lost == 1000


def test_a_reader_that_went_away_harms_nothing() -> None:
    """EPIPE counts as lost, and the next lines are tried again."""
    source, sink = os.pipe()
    os.close(source)
    log = Log(sink, JSON)
    for _ in range(3):
        log.call(LOGGED)
    log.close()
    os.close(sink)
    assert log.lost == 3


def test_a_descriptor_that_does_not_block_is_waited_for(pipe: Pipe) -> None:
    """Whoever shares it may have made it so: nothing is lost and nothing is cut."""
    os.set_blocking(pipe.sink, False)
    log = Log(pipe.sink, JSON)
    for number in range(100):
        log.call(LOGGED._replace(id=f"n{number}"))
    read = bytearray()
    while read.count(b"\n") < 100:
        read += os.read(pipe.source, 65536)
    log.close()
    assert [json.loads(line)["id"] for line in read.splitlines()] == [f"n{n}" for n in range(100)]
    os.close(pipe.sink)


# The loggers of the rooms, and of libraries.


def told(pipe: Pipe, settings: LogSettings, work: Callable[[], None]) -> list[dict[str, Any]]:
    with logging_to(pipe.sink, settings):
        work()
    return [json.loads(line) for line in pipe.read_all()]


def test_rooms_tell_by_the_same_way(pipe: Pipe) -> None:
    """With the id of the call as a member."""

    def work() -> None:
        logging.getLogger("keyrelay.cache").warning("it %s", "broke", extra={"id": "abc"})

    [line] = told(pipe, LogSettings(), work)
    assert (line["event"], line["level"], line["id"]) == ("it broke", "warning", "abc")
    assert line["logger"] == "keyrelay.cache"


def test_one_of_several_processes_says_which_it_is(pipe: Pipe, tmp_path: Path) -> None:
    """And waits for its turn to write; who has no thread writes at once, in the same form."""
    with (tmp_path / "turns").open("w") as turns:
        settings = LogSettings(process="worker 1", turns=turns.fileno())
        write_line(pipe.sink, settings, Told(0.0, "error", "keyrelay", "at once", {"a": "b"}))
        lines = told(pipe, settings, lambda: logging.getLogger("keyrelay").error("it"))
    assert [(one["event"], one.get("process"), one.get("a")) for one in lines] == [
        ("at once", None, "b"),
        ("it", "worker 1", None),
    ]


def test_who_has_no_thread_waits_for_no_reader(
    pipe: Pipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where nobody takes lines, nor where another process has the turn for that reason."""
    monkeypatch.setattr(logs, "LAST_SECONDS", 0.02)
    line = Told(0.0, "error", "keyrelay", "at once", {})
    with (tmp_path / "turns").open("w") as turns:
        settings = LogSettings(turns=turns.fileno())
        command = [sys.executable, "-c", HOLDER, turns.name]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"mine\n"
            write_line(pipe.sink, settings, line)
            other.kill()
        os.write(pipe.sink, b"\n" * PIPE)  # as much as it holds
        write_line(pipe.sink, settings, line)
    assert pipe.read_all() == [""] * PIPE


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_is_ours_and_libraries_only_warn(
    pipe: Pipe, level: str, expected: list[str]
) -> None:
    """At lower levels httpx shows URLs, and others worse."""

    def work() -> None:
        for name in ("keyrelay", "httpx"):
            for word in ("debug", "info", "warning", "error"):
                logging.getLogger(name).log(getattr(logging, word.upper()), word)

    lines = told(pipe, LogSettings(level=level), work)
    assert [line["event"] for line in lines if line["logger"] == "keyrelay"] == expected
    theirs = {line["event"] for line in lines if line["logger"] == "httpx"}
    assert theirs == {"warning", "error"} & set(expected)


def test_calls_are_told_from_the_level_info_on(pipe: Pipe) -> None:
    """Above it nobody even hands them over."""
    for level, takes in (("debug", True), ("info", True), ("warning", False), ("error", False)):
        with logging_to(pipe.sink, LogSettings(level=level)) as log:
            assert log.takes_calls is takes
    os.close(pipe.sink)


def test_an_error_in_a_line_is_told_without_its_text(pipe: Pipe) -> None:
    """By kinds and places: no message, no local variable, no line of source."""

    def fail() -> None:
        password = "sk-" + "CANARY"
        raise KeyError(password)

    def work() -> None:
        try:
            try:
                fail()
            except KeyError as error:
                raise RuntimeError(f"with {error}") from error
        except RuntimeError:
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")

    [line] = told(pipe, LogSettings(), work)
    assert line["event"] == "Exception in ASGI application"
    assert line["error"] == "RuntimeError from KeyError"
    assert "test_logs.py" in line["at"]
    assert " fail" in line["at"].split(" from ")[1]
    assert "CANARY" not in json.dumps(line)


def test_what_asyncio_says_of_a_lost_task_holds_no_text_of_its_error(pipe: Pipe) -> None:
    """Behind its first line it shows the error itself."""

    async def lose() -> None:
        loop = asyncio.get_running_loop()
        error = ValueError("CANARY")
        loop.call_exception_handler(
            {"message": "Task exception was never retrieved", "exception": error, "task": error}
        )

    [line] = told(pipe, LogSettings(), lambda: asyncio.run(lose()))
    assert line["event"] == "Task exception was never retrieved"
    assert line["error"] == "ValueError"
    assert "CANARY" not in json.dumps(line)


def test_words_that_do_not_fit_their_values_harm_nobody(
    pipe: Pipe, capfd: pytest.CaptureFixture[str]
) -> None:
    """The standard library would print the values."""
    with logging_to(pipe.sink, LogSettings()) as log:
        record = logging.LogRecord("keyrelay", logging.WARNING, "", 0, "%d", ("CANARY",), None)
        Handler(log).emit(record)
    [line] = [json.loads(one) for one in pipe.read_all()]
    assert line["event"] == "a line without words"
    assert "CANARY" not in capfd.readouterr().err


def test_afterwards_the_loggers_are_as_they_were(pipe: Pipe) -> None:
    """Levels and handlers: another server may run in this process."""
    root, own = logging.getLogger(), logging.getLogger("keyrelay")
    before = root.level, own.level, list(root.handlers)
    with logging_to(pipe.sink, LogSettings(level="debug")):
        assert own.level == logging.DEBUG
    assert (root.level, own.level, list(root.handlers)) == before
    os.close(pipe.sink)
