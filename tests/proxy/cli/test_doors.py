"""How many connections a server lets in, by its settings and by the files that it may open."""

from __future__ import annotations

import logging
import resource

import pytest

from proxy.cli.doors import MOST_HANDLES, Doors, take_handles
from proxy.config import Config
from proxy.config.model import Server
from proxy.errors import BadRequest
from proxy.messages import Fields
from tests.support.clock import FakeClock


def config(**server: int) -> Config:
    return Config(server=Server(**server))  # type: ignore[arg-type]


def test_every_listener_has_a_door_of_its_own() -> None:
    """A flood of callers does not shut out the admin; other settings are those of all."""
    doors = Doors(config(max_connections=1), FakeClock(), MOST_HANDLES)
    metrics = doors.another()
    assert [door.enter("192.0.2.1") for door in (doors.callers, doors.callers, metrics)] == [
        "192.0.2.1",
        None,
        "192.0.2.1",
    ]
    assert doors.arrivals() == (1, {"total": 1, "address": 0})
    doors.live.take(config(max_connections=3, max_connections_per_address=2))
    found = [door.enter("192.0.2.1") for door in (doors.callers, doors.callers, metrics, metrics)]
    assert found == ["192.0.2.1", None, "192.0.2.1", None]


def test_every_listener_answers_to_the_same_names() -> None:
    """Those that are listed, and the public URL's; where none are, to all."""

    def host(name: bytes) -> Fields:
        return ((b"host", name),)

    public = "https://relay.example.com/x"
    server = Server(hosts=("Relay.Internal",), public_url=public)
    doors = Doors(Config(server=server), FakeClock(), MOST_HANDLES)
    for door in (doors.callers, doors.another()):
        for name in (b"relay.internal:8000", b"relay.example.com"):
            door.hosts.check(host(name))
        with pytest.raises(BadRequest):
            door.hosts.check(host(b"evil.example"))
    any_name = Doors(Config(server=Server(public_url=public)), FakeClock(), MOST_HANDLES)
    any_name.callers.hosts.check(host(b"evil.example"))


def test_handles_are_left_for_upstreams_and_files(caplog: pytest.LogCaptureFixture) -> None:
    """A cap that the system doesn't bear is none; the log says so."""
    caplog.set_level(logging.WARNING, "keyrelay")
    doors = Doors(config(max_connections=100, max_connections_per_address=100), FakeClock(), 40)
    found = [doors.callers.enter("192.0.2.1") for _ in range(31)]
    assert (found[29], found[30]) == ("192.0.2.1", None)
    assert [record.getMessage() for record in caplog.records][:1] == [
        "the process may open 40 files: at most 30 connections, not server.max_connections"
    ]


def test_a_server_takes_the_handles_that_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a bound, and never fewer than it has."""
    infinite = resource.RLIM_INFINITY
    for now, after in (
        ((1024, 4096), 4096),
        ((1024, infinite), MOST_HANDLES),
        ((1024, 1 << 20), MOST_HANDLES),
        ((100_000, 1 << 20), 100_000),
        ((infinite, infinite), MOST_HANDLES),
        ((4096, 4096), 4096),
    ):
        limits = [now]
        monkeypatch.setattr(resource, "getrlimit", lambda _, limits=limits: limits[-1])
        monkeypatch.setattr(resource, "setrlimit", lambda _, new, limits=limits: limits.append(new))
        assert take_handles() == after
        assert limits[-1] in ((after, now[1]), now)
