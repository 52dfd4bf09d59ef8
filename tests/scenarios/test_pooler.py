"""Two instances whose PostgreSQL stands behind a PgBouncer that lends for a transaction each."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.scenarios.test_lost_postgres import KEY, asked, openai, until
from tests.support.engines import RunningPostgres, pooler_running
from tests.support.origin import Origin, reply
from tests.support.relay import Running, running_relay
from vault import Secret

CALLS = 200
NEWER = "sk-canary-newer-0123456789abcdef"


async def test_instances_do_all_they_do_through_a_pooler(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    """Keys, tokens, changes, budgets and usage, on fewer connections than there are instances."""
    one, two = tmp_path / "one", tmp_path / "two"
    with pooler_running(postgres, "default_pool_size=2") as pooler:
        url = pooler.another()
        said = f"vault: {{url: '{url}'}}\n"
        async with (
            Origin(reply(200, body=b"yes")) as origin,
            running_relay(one, openai(origin), said) as first,
        ):
            two.mkdir(mode=0o700)
            (two / "master.key").touch(0o600)
            (two / "master.key").write_bytes((one / "master.key").read_bytes())
            async with running_relay(two, openai(origin), said, name="other") as second:
                await _shared(origin, first, second)
        name, sent = url.rpartition("/")[2], str(len(origin.requests))
        assert postgres.say("SELECT sum(calls) FROM budgets", name) == sent
        went = "SELECT sum(calls) FROM usage_sums WHERE step = 3600 AND token = 'ann'"
        assert int(postgres.say(went, name)) >= int(sent) > CALLS


async def _shared(origin: Origin, first: Running, second: Running) -> None:
    """A key of one, a token of the other, many calls at both, and another key."""
    await first.add_key("openai", key=KEY)
    token = await second.issue("ann", budget=9 * CALLS)

    async def all_send(key: str) -> bool:
        found = await asyncio.gather(*(asked(one, token) for one in (first, second)))
        assert {one.status for one in found} <= {200, 401, 403}
        sent = {one.header("authorization") for one in origin.requests[-2:]}
        return {one.status for one in found} == {200} and sent == {f"Bearer {key}"}

    await until(lambda: all_send(KEY))
    found = await asyncio.gather(*(asked((first, second)[n % 2], token) for n in range(CALLS)))
    assert {one.status for one in found} == {200}
    await first.vault.rotate_key("default", "openai", "default", {"key": Secret(NEWER.encode())})
    await until(lambda: all_send(NEWER))
