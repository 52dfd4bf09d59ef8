"""A process of its own that uses a vault: `python -m tests.vault.worker ACT DATA NAME`.

It says `ready` when it could begin, begins when it is told to, and says each change once it was
acknowledged.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

from tests.support.clock import FakeClock
from tests.vault.words import open_vault
from vault import NewKey, NewToken, Secret, VaultError


def value(alias: str, version: int) -> bytes:
    return f"sk-{alias}-{version}-0123456789".encode()


def say(*words: object) -> None:
    print(*words, flush=True)


async def change(data: Path, name: str) -> None:
    """Puts and rotates keys, and issues and revokes tokens, until it is killed."""
    vault = await open_vault(data, {}, FakeClock(), actor=name)
    for number in count():
        alias = f"{name}-{number}"
        parts = {"key": Secret(value(alias, 1)), "more": Secret(value(alias, 1))}
        await vault.put_key(NewKey("default", "openai", alias, parts))
        say("put", alias)
        parts = {"key": Secret(value(alias, 2)), "more": Secret(value(alias, 2))}
        await vault.rotate_key("default", "openai", alias, parts)
        say("rotated", alias)
        _, text = await vault.issue_token(NewToken("default", alias))
        say("issued", text)
        if number % 2:
            await vault.remove_key("default", "openai", alias)
            say("removed", alias)
            await vault.revoke_token("default", alias)
            say("revoked", text)


async def rotate(data: Path, name: str) -> None:
    """Rotates the master key and re-seals, until it is killed."""
    vault = await open_vault(data, {}, FakeClock(), actor=name)
    for number in count():
        await vault.rotate_master(reseal=True)
        say("turned", number)


async def init(data: Path, name: str) -> None:
    """Makes the vault."""
    try:
        vault = await open_vault(data, {}, FakeClock(), create=True, actor=name)
    except VaultError as error:
        say(error)
    else:
        await vault.close()
        say("made", name)


async def share(data: Path, name: str) -> None:
    """Uses the vault as a command line and a server would, a few times."""
    vault = await open_vault(data, {}, FakeClock(), actor=name)
    for number in range(12):
        key = {"key": Secret(value(name, number))}
        ref = (await vault.put_key(NewKey("default", "openai", f"{name}-{number}", key))).ref
        await vault.refresh()
        assert await vault.open_key(ref) == key
        assert ref in (await vault.holdings("default")).keys["openai"]
        say("put", ref.alias)
    await vault.close()


ACTS: dict[str, Callable[[Path, str], Awaitable[None]]] = {
    "change": change,
    "rotate": rotate,
    "init": init,
    "share": share,
}


async def main() -> None:
    act, data, name = sys.argv[1:]
    say("ready")
    sys.stdin.readline()
    await ACTS[act](Path(data), name)


if __name__ == "__main__":
    asyncio.run(main())
