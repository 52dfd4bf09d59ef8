"""Where the master keys come from, and how their file is guarded."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from vault import MasterKeyMissing
from vault.keeper import ask_keeper
from vault.keyring import MasterKey, MasterKeys
from vault.mastersource import MasterKeySource

KEY = MasterKey.random()
OTHER = MasterKey.random()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside key"
    path.write_text(KEY.text())
    path.chmod(0o640)
    return path


def test_the_outside_file_comes_first(data: Path, outside: Path) -> None:
    """Then the environment, then master.key in the data directory."""
    both = {"KEYRELAY_MASTER_KEY_FILE": str(outside), "KEYRELAY_MASTER_KEY": OTHER.text()}
    assert MasterKeySource.find(data, both).read().current.id == KEY.id
    del both["KEYRELAY_MASTER_KEY_FILE"]
    assert MasterKeySource.find(data, both).read().current.id == OTHER.id
    ours = MasterKeySource.find(data, {})
    assert not ours.present()
    assert ours.create().current.id == ours.read().current.id
    assert ours.present()


def test_the_environment_may_hold_several(data: Path) -> None:
    """Current first."""
    source = MasterKeySource.find(data, {"KEYRELAY_MASTER_KEY": f"{KEY.text()}, {OTHER.text()}"})
    keys = source.read()
    assert (keys.current.id, [key.id for key in keys.retired]) == (KEY.id, [OTHER.id])
    assert source.described == "KEYRELAY_MASTER_KEY"
    assert KEY.text() not in repr(source)


def test_a_variable_that_is_set_but_empty_is_refused(data: Path) -> None:
    """A secret that an orchestrator failed to fill must not start a vault anew."""
    with pytest.raises(MasterKeyMissing, match="KEYRELAY_MASTER_KEY holds no master key"):
        MasterKeySource.find(data, {"KEYRELAY_MASTER_KEY": " "}).read()


def test_the_key_file_is_private_from_its_first_moment(data: Path) -> None:
    """Mode 0600, with nothing left beside it."""
    MasterKeySource.find(data, {}).create()
    assert [path.name for path in data.iterdir()] == ["master.key"]
    assert (data / "master.key").stat().st_mode & 0o777 == 0o600


def test_a_file_is_replaced_as_a_whole(data: Path) -> None:
    """Also over what a killed run has left behind."""
    source = MasterKeySource.find(data, {})
    source.create()
    (data / ".master.key.new").write_text("half")
    source.write(MasterKeys(OTHER, (KEY,)))
    assert source.read().current.id == OTHER.id
    assert [path.name for path in data.iterdir()] == ["master.key"]


def test_root_leaves_the_key_to_the_owner_of_the_data(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the server, which is not root, could not start any more."""
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda _file, user, group: given.append((user, group)))
    owner = data.stat()
    for account, expected in ((1000, []), (0, [(owner.st_uid, owner.st_gid)])):
        monkeypatch.setattr(os, "geteuid", lambda account=account: account)
        MasterKeySource.find(data, {}).create()
        assert given == expected


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_our_key_file_must_be_private(data: Path, mode: int) -> None:
    """The remedy is in the message."""
    source = MasterKeySource.find(data, {})
    source.create()
    source.path.chmod(mode)
    with pytest.raises(MasterKeyMissing, match=r"is open to others; run: chmod 600 .*master\.key$"):
        source.read()


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o755])
def test_a_data_directory_that_is_open_to_others_is_refused(data: Path, mode: int) -> None:
    """Before anything is made in it, and when it is read."""
    source = MasterKeySource.find(data, {})
    source.create()
    data.chmod(mode)
    for act in (source.make_directory, source.read):
        with pytest.raises(MasterKeyMissing, match="open to others; run: chmod 700"):
            act()


def test_an_outside_file_may_be_read_by_its_group(data: Path, outside: Path) -> None:
    """For orchestrators; but by nobody else, and written only by its owner."""
    data.chmod(0o755)
    source = MasterKeySource.find(data, {"KEYRELAY_MASTER_KEY_FILE": str(outside)})
    assert source.read().current.id == KEY.id
    for mode in (0o644, 0o660):
        outside.chmod(mode)
        remedy = re.escape(f"run: chmod 640 '{outside}'")
        with pytest.raises(MasterKeyMissing, match=remedy):
            source.read()


def test_what_cannot_be_read_is_named(data: Path, tmp_path: Path) -> None:
    """A missing file, a directory, octets that are no text, a data directory that is gone."""
    gone = MasterKeySource.find(data, {"KEYRELAY_MASTER_KEY_FILE": str(tmp_path / "gone")})
    assert gone.present()
    with pytest.raises(MasterKeyMissing, match=r"gone \(KEYRELAY_MASTER_KEY_FILE\) can't be read"):
        gone.read()
    directory = MasterKeySource.find(data, {"KEYRELAY_MASTER_KEY_FILE": str(data)})
    with pytest.raises(MasterKeyMissing, match="is a directory"):
        directory.read()
    ours = MasterKeySource.find(data, {})
    ours.create()
    ours.path.write_bytes(b"\xff\xfe")
    with pytest.raises(MasterKeyMissing, match="not a text file"):
        ours.read()
    with pytest.raises(MasterKeyMissing, match=r"the data directory .* can't be read"):
        MasterKeySource.find(tmp_path / "nowhere", {}).read()


def test_a_credential_of_systemd_comes_before_our_file(data: Path, tmp_path: Path) -> None:
    """Where systemd hands one over; not in the place of what somebody named."""
    ours = MasterKeySource.find(data, {}).create().current.id
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    (tmp_path / "credentials").mkdir()
    assert MasterKeySource.find(data, environ).read().current.id == ours
    credential = tmp_path / "credentials/keyrelay-master-key"
    credential.write_text(f"{KEY.text()}\n{OTHER.text()}\n")
    credential.chmod(0o440)
    source = MasterKeySource.find(data, environ)
    assert (source.read().current.id, source.ours) == (KEY.id, False)
    assert [key.id for key in source.read().retired] == [OTHER.id]
    assert source.described == "the systemd credential keyrelay-master-key"
    named = {**environ, "KEYRELAY_MASTER_KEY": OTHER.text()}
    assert MasterKeySource.find(data, named).read().current.id == OTHER.id


def test_an_outside_keeper_is_asked_by_its_command(data: Path) -> None:
    """Its words as they are, without a shell, an input or our file; where no variable is set."""
    code = (
        "import sys; assert not sys.stdin.read(); print('# kept\\n' + sys.argv[1], file=sys.stdout)"
    )
    command = [sys.executable, "-c", code, KEY.text()]
    source = MasterKeySource.find(data, {}, command)
    assert source.read().current.id == KEY.id
    assert (source.ours, source.present()) == (False, True)
    assert source.described == f"the command {sys.executable} (server.master_key_command)"
    variable = {"KEYRELAY_MASTER_KEY": OTHER.text()}
    assert MasterKeySource.find(data, variable, command).read().current.id == OTHER.id


def test_a_keeper_is_given_no_secret_of_ours(data: Path) -> None:
    """But whatever it may need to sign in itself."""
    code = "import os; os.environ.pop('LC_CTYPE', 0); print('\\n'.join(sorted(os.environ)))"
    theirs = {"PATH": "/bin", "HOME": "/root", "AWS_PROFILE": "x", "KEYRELAY_DATA": "/data"}
    ours = {"KEYRELAY_MASTER_KEY": KEY.text(), "KEYRELAY_MASTER_PASSPHRASE_FILE": "/secret"}
    said = ask_keeper([sys.executable, "-c", code], {**theirs, **ours})
    assert said.split() == sorted(theirs)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/nonexistent/keeper"], r"can't be started \(no such file"),
        (["\x00"], r"can't be started \(it is no command\)"),
        ([sys.executable, "-c", "print('secret'); raise SystemExit(3)"], "ended with code 3"),
        ([sys.executable, "-c", "import os; os.write(1, bytes([255]))"], "printed what is no text"),
        ([sys.executable, "-c", "print('secret')"], "is malformed"),
        ([sys.executable, "-c", ""], "holds no master key"),
    ],
)
def test_a_keeper_that_fails_is_named(data: Path, command: list[str], words: str) -> None:
    """And what it printed is not in the message."""
    with pytest.raises(MasterKeyMissing, match=words) as error:
        MasterKeySource.find(data, {}, command).read()
    assert "secret" not in str(error.value)


def test_a_keeper_does_not_take_forever(data: Path) -> None:
    """Nobody waits for a key that does not come."""
    with pytest.raises(MasterKeyMissing, match="took longer than 0 seconds; run it by hand"):
        ask_keeper([sys.executable, "-c", "import signal; signal.pause()"], {}, seconds=0)
