"""Several processes at one vault, and processes that are killed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from tests.support.engines import RunningPostgres
from tests.vault.conftest import Opener
from tests.vault.words import FIRST, named, new_key, open_vault, rows
from tests.vault.words import said as said_by
from tests.vault.worker import value
from vault import Changes, Vault


class Worker:
    """A process that waits to be told to begin."""

    def __init__(self, act: str, data: Path, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.vault.worker", act, str(data), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def begin(self) -> None:
        assert self._process.stdout.readline() == "ready\n"
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def hear(self, lines: int) -> list[str]:
        return [self._process.stdout.readline().strip() for _ in range(lines)]

    def kill(self) -> list[str]:
        """What it said until it died."""
        self._process.kill()
        return self.end()

    def end(self) -> list[str]:
        said, complaints = self._process.communicate(timeout=60)
        assert complaints == ""
        return said.split("\n")[:-1]


@pytest.fixture
def chance() -> random.Random:
    """The moments of a run; its seed is in the failure's output."""
    seed = random.randrange(2**32)
    print("seed", seed)
    return random.Random(seed)


def workers(act: str, data: Path, names: list[str]) -> Iterator[Worker]:
    """The next one is already being started while one works."""
    waiting = [Worker(act, data, name) for name in names[:2]]
    for name in names[2:]:
        yield waiting.pop(0)
        waiting.append(Worker(act, data, name))
    yield from waiting


async def test_processes_share_a_vault(data: Path, vault: Vault) -> None:
    """Writers and a reader at once: nobody meets a locked database, nothing is lost."""
    crowd = [Worker("share", data, f"w{number}") for number in range(3)]
    for worker in crowd:
        worker.begin()
    await vault.put_key(new_key(alias="own"))
    said = [worker.end() for worker in crowd]
    assert [len(one) for one in said] == [12] * 3
    await vault.refresh()
    assert len(await vault.list_keys()) == 37
    assert (await vault.verify_audit()).faults == ()
    assert [key.ref.default for key in await vault.list_keys()].count(True) == 1


async def test_processes_make_one_vault_together(nothing_yet: Path, clock: FakeClock) -> None:
    """`init` at the same time: one makes it, the others find it."""
    data = nothing_yet
    crowd = [Worker("init", data, f"w{number}") for number in range(3)]
    for worker in crowd:
        worker.begin()
    assert sorted(worker.end()[0] for worker in crowd) == ["made w0", "made w1", "made w2"]
    vault = await open_vault(data, {}, clock)
    assert [entry.subject for entry in await vault.audit()] == ["fingerprints", "keys"]
    await vault.close()


async def test_what_was_acknowledged_survives_a_kill(
    engine: str, data: Path, opener: Opener, chance: random.Random
) -> None:
    """kill -9 at random moments: every acknowledged change is there, and nothing is half."""
    said: list[str] = []
    many = 20 if engine == "sqlite" else 3  # a server is none of ours to damage
    for worker in workers("change", data, [f"w{number}" for number in range(many)]):
        worker.begin()
        said += worker.hear(chance.randrange(1, 8))
        time.sleep(chance.uniform(0, 0.03))  # not for order: the moment is to be any
        said += worker.kill()
    if engine == "sqlite":
        assert rows(data, "PRAGMA integrity_check") == [("ok",)]
        assert rows(data, "PRAGMA foreign_key_check") == []
    vault = await opener()
    acknowledged = [line.split() for line in said]
    await check_keys(vault, acknowledged)
    await check_tokens(vault, acknowledged)
    counted = rows(data, "SELECT count(*) FROM audit WHERE actor LIKE 'w%' AND action LIKE 'key %'")
    assert (await vault.verify_audit()).faults == ()
    assert counted[0][0] >= sum(word in {"put", "rotated", "removed"} for word, _ in acknowledged)


async def check_tokens(vault: Vault, acknowledged: list[list[str]]) -> None:
    stored = {token.id: token for token in await vault.list_tokens()}
    for word, text in acknowledged:
        if word == "issued":
            token = stored[text[3:15]]
            good = await vault.verify_token(text.encode())
            assert good == (token if token.revoked_at is None else None)
        if word == "revoked":
            assert stored[text[3:15]].revoked_at is not None


async def check_keys(vault: Vault, acknowledged: list[list[str]]) -> None:
    held = {key.ref.alias: key.ref for key in await vault.list_keys()}
    for alias, ref in held.items():
        parts = await vault.open_key(ref)
        expected = value(alias, ref.version)
        assert {part.reveal() for part in parts.values()} == {expected}
        (found,) = await vault.recognise(expected)
        assert found.ref == ref
    for word, alias in acknowledged:
        if word == "removed":
            assert alias not in held
        if word == "rotated" and alias in held:
            assert held[alias].version == 2
        if word in {"put", "rotated"} and alias not in held:
            assert int(alias.split("-")[1]) % 2, "only a removal may have come after"


@pytest.mark.on_file
async def test_a_rotation_survives_a_kill(
    vault: Vault, data: Path, opener: Opener, chance: random.Random
) -> None:
    """kill -9 at random moments of `master rotate --reseal`: every key opens, and it resumes."""
    await vault.apply(Changes(tuple(new_key(alias=f"a{number}") for number in range(5))))
    for worker in workers("rotate", data, [f"w{number}" for number in range(10)]):
        worker.begin()
        worker.hear(chance.randrange(0, 3))
        time.sleep(chance.uniform(0, 0.3))  # not for order: the moment is to be any
        worker.kill()
        after = await opener()
        for number in range(5):
            assert (await after.open_key(named(f"a{number}")))["key"].reveal() == FIRST
    await (await opener()).rotate_master(reseal=True)
    assert rows(data, "SELECT count(*), count(DISTINCT master_id) FROM data_keys") == [(2, 1)]
    assert (data / "master.key").read_text().count("\n") == 2
    for number in range(5):
        assert (await (await opener()).open_key(named(f"a{number}")))["key"].reveal() == FIRST


async def test_an_init_survives_a_kill(
    tmp_path: Path, clock: FakeClock, chance: random.Random
) -> None:
    """kill -9 at random moments: the next run makes a vault that works."""
    for number, worker in enumerate(Worker("init", tmp_path / f"d{n}", "w") for n in range(6)):
        worker.begin()
        time.sleep(chance.uniform(0, 0.4))  # not for order: the moment is to be any
        worker.kill()
        vault = await open_vault(tmp_path / f"d{number}", {}, clock, create=True)
        ref = (await vault.put_key(new_key())).ref
        assert (await vault.open_key(ref))["key"].reveal() == FIRST
        await vault.close()


async def test_instances_with_a_key_of_their_own_do_not_share_a_vault(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    """Begun at once on one empty server: one makes it; the others say which key they lack, and
    leave none of their own behind."""
    url = postgres.another()
    crowd = []
    for number in range(3):
        (tmp_path / f"i{number}").mkdir()
        (tmp_path / f"i{number}" / "url").write_text(url)
        crowd.append(Worker("init", tmp_path / f"i{number}" / "data", f"w{number}"))
    for worker in crowd:
        worker.begin()
    said = [worker.end()[0] for worker in crowd]
    made = [number for number in range(3) if said[number] == f"made w{number}"]
    assert len(made) == 1
    assert sum("the key is missing; restore it" in one for one in said) == 2
    keys = [(tmp_path / f"i{number}" / "data/master.key").exists() for number in range(3)]
    assert [number for number in range(3) if keys[number]] == made
    assert said_by(url, "SELECT count(*) FROM data_keys") == [(2,)]
