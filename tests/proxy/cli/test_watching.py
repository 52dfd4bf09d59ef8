"""The configuration's files: when one counts as changed (issue: changing)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.cli import lastgood
from proxy.cli.desk import Desk
from proxy.cli.watching import ConfigFiles
from proxy.config import Config, ConfigError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    return data


def desk(data: Path, config: Path | None = None) -> Desk:
    return Desk(
        environ={"NAME": "sk-test-0123456789abcdef"}, data_option=data, config_option=config
    )


def settled(files: ConfigFiles) -> bool:
    """Two looks: the first sees, the second knows that nobody is still writing."""
    first, second = files.changed(), files.changed()
    assert not first
    return second


def test_a_change_counts_once_it_has_settled(data: Path) -> None:
    """An editor that empties a file before it writes is not met in between."""
    path = data / "keys.yaml"
    path.write_text("server: {port: 1}\n")
    files = ConfigFiles(desk(data))
    assert not files.changed()
    path.write_text("")
    assert not files.changed()
    path.write_text("server: {port: 2}\n")
    assert settled(files)
    assert files.load().server.port == 2
    assert not settled(files)


def test_a_rename_over_it_counts(data: Path) -> None:
    """As careful editors do, also with the same size and times."""
    path = data / "keys.yaml"
    path.write_text("server: {port: 1}\n")
    files = ConfigFiles(desk(data))
    beside = data / "keys.new"
    beside.write_text("server: {port: 2}\n")
    times = path.stat()
    os.utime(beside, ns=(times.st_atime_ns, times.st_mtime_ns))
    beside.rename(path)
    assert settled(files)
    assert files.load().server.port == 2


def test_a_swapped_link_counts(tmp_path: Path, data: Path) -> None:
    """As orchestrators do with mounted files: a link to a link to a folder."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys.yaml").write_text(f"server: {{port: {len(name)}}}\n")
    (tmp_path / "two/keys.yaml").write_text("server: {port: 9}\n")
    (tmp_path / "now").symlink_to("one")
    (tmp_path / "keys.yaml").symlink_to("now/keys.yaml")
    files = ConfigFiles(desk(data, tmp_path / "keys.yaml"))
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "now")
    assert settled(files)
    assert files.load().server.port == 9


def test_a_key_file_that_it_names_counts(data: Path) -> None:
    """A mounted secret is rotated so."""
    (data / "openai.key").write_text("sk-first-0123456789abcdef\n")
    (data / "keys.yaml").write_text("keys: {openai: 'file:openai.key'}\n")
    files = ConfigFiles(desk(data))
    assert not settled(files)
    (data / "openai.key").write_text("sk-second-0123456789abcdef\n")
    assert settled(files)
    [key] = files.load().keys
    assert key.value is not None
    assert key.value.masked().endswith("cdef")


def test_one_that_comes_later_is_found(data: Path) -> None:
    """A server may start without any."""
    files = ConfigFiles(desk(data))
    (data / "keys.yaml").write_text("server: {port: 7}\n")
    assert settled(files)
    assert files.load().server.port == 7


def test_one_that_is_gone_is_a_mistake(data: Path) -> None:
    """Not an empty configuration, which would end every key in it."""
    path = data / "keys.yaml"
    path.write_text("server: {port: 1}\n")
    files = ConfigFiles(desk(data))
    path.unlink()
    assert settled(files)
    with pytest.raises(ConfigError, match=r"keys\.yaml: can't be read"):
        files.load()
    assert not settled(files)


@pytest.mark.parametrize(
    "text",
    [
        "keys: &a {openai: *a}\n",
        "keys: {openai: 'file:~nobody-of-this-name/x'}\n",
        'keys: {openai: "file:a\\0b"}\n',
        'keys: {openai: "file:\\ud800"}\n',
        "keys: !!bool x\n",
    ],
)
def test_what_no_file_should_say_is_a_mistake_once(data: Path, text: str) -> None:
    """And nothing else: looking goes on, and the mended file counts."""
    path = data / "keys.yaml"
    path.write_text("server: {port: 1}\n")
    files = ConfigFiles(desk(data))
    path.write_text(text)
    assert settled(files)
    with pytest.raises(ConfigError):
        files.load()
    assert not settled(files)
    path.write_text("server: {port: 22}\n")
    assert settled(files)
    assert files.load().server.port == 22


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["keys.yaml", "openai.key"])
def test_a_pipe_is_a_mistake(data: Path, name: str) -> None:
    """Reading it would wait for whoever writes, and a server that is told to end for both."""
    (data / "keys.yaml").write_text("server: {port: 1}\n")
    files = ConfigFiles(desk(data))
    (data / "keys.yaml").write_text("keys: {openai: 'file:openai.key'}\n")
    (data / name).unlink(missing_ok=True)
    os.mkfifo(data / name)
    assert settled(files)
    with pytest.raises(ConfigError, match="expected a regular file"):
        files.load()


@pytest.mark.timeout(20)
def test_a_pipe_at_the_start_is_a_mistake_too(data: Path) -> None:
    """`--config <(...)`: what was read to watch it would be missing from what is served."""
    os.mkfifo(data / "pipe")
    with pytest.raises(ConfigError, match="pipe: expected a regular file, found a pipe"):
        ConfigFiles(desk(data, data / "pipe"))
    assert not ConfigFiles(desk(data, Path(os.devnull))).changed()


def test_a_process_begins_with_what_was_taken_up_last(data: Path) -> None:
    """Where the files say nothing. What is only loaded may have been refused."""
    path = data / "keys.yaml"
    files, at_start = ConfigFiles(desk(data)), Config()
    files.taken()
    path.write_text("server: {port: 1}\n")
    assert files.begun(at_start).server.port == 1
    path.write_text("server: {")
    assert files.begun(at_start) is at_start
    for port in (2, 3):
        path.write_text(f"server: {{port: {port}}}\n")
        files.load()
        if port == 2:
            files.taken()
    path.write_text("server: {")
    assert files.begun(at_start).server.port == 2


def test_who_began_so_takes_all_of_it_up_and_then_looks(data: Path) -> None:
    """A change of settings that were not declared comes as it came to the others; the mistake in
    the file is said next."""
    path = data / "keys.yaml"
    path.write_text("server: {port: 1}\n")
    files = ConfigFiles(desk(data))
    path.write_text("server: {port: 2}\nkeys: {openai: '${NAME}'}\n")
    files.load()
    files.taken()
    path.write_text("server: {")
    assert len(files.begun(Config()).keys) == 1
    assert settled(files)
    assert files.load().server.port == 2
    assert files.changed()
    with pytest.raises(ConfigError):
        files.load()
    assert not settled(files)


def test_what_had_no_room_to_be_kept_is_not_replaced_by_older(data: Path) -> None:
    """A process that would go on with something else does not begin."""
    path = data / "keys.yaml"
    path.write_text("server: {port: 1}\n")
    files = ConfigFiles(desk(data))
    files.load()
    files.taken()
    files._read = b"x" * lastgood.ROOM
    files.taken()
    path.write_text("server: {")
    with pytest.raises(ConfigError):
        files.begun(Config())
