"""The example scripts run to their end against a keyrelay and a double of the provider."""

from __future__ import annotations

from pathlib import Path

from tests.examples.doubles import ANSWER, COMPLETION, OPENAI_KEY
from tests.support.examples import run_example
from tests.support.origin import Origin, json_reply
from tests.support.relay import running_relay

JOB = "/v1/predictions/one"
REPLICATE_KEY = "r8_made-up-0123456789abcdefghijklmnop"


async def test_openai_sdk_with_one_new_line(tmp_path: Path) -> None:
    """The token stands where the API key stood; the provider gets its key and no token."""
    async with Origin(COMPLETION) as openai:
        services = {"openai": {"origin": openai.url}}
        async with running_relay(tmp_path / "data", services) as relay:
            await relay.add_key("openai", key=OPENAI_KEY)
            ran = await run_example(
                "openai_one_line.py", KEYRELAY_URL=relay.url, OPENAI_API_KEY=relay.token
            )
            assert (ran.status, ran.output) == (0, ANSWER + "\n")
            assert openai.last.target == "/v1/chat/completions"
            assert openai.last.all("authorization") == [f"Bearer {OPENAI_KEY}"]
            assert relay.token.encode() not in openai.last.raw


async def test_polling_refreshes_until_done_and_then_costs_nothing(tmp_path: Path) -> None:
    """Contract section 6: `cache` looks up, `cache&invalidate` replaces the entry."""
    polls = [json_reply({"status": status}) for status in ("starting", "processing", "succeeded")]
    async with Origin(polls) as replicate:
        services = {"replicate": {"origin": replicate.url}}
        async with running_relay(tmp_path / "data", services) as relay:
            await relay.add_key("replicate", key=REPLICATE_KEY)
            environment = {"KEYRELAY_URL": relay.url, "KEYRELAY_TOKEN": relay.token}
            job = replicate.url + JOB
            first = await run_example("poll_job.py", job, POLL_SECONDS="0", **environment)
            assert first.status == 0, first.output
            lines = [line.split(maxsplit=1) for line in first.output.splitlines()]
            assert [line[0] for line in lines] == ["starting", "processing", "succeeded"]
            assert all("hit" not in line[1] for line in lines)
            assert [one.target for one in replicate.requests] == [JOB] * 3
            assert replicate.last.header("authorization") == f"Bearer {REPLICATE_KEY}"

            again = await run_example("poll_job.py", job, POLL_SECONDS="0", **environment)
            assert again.status == 0
            [line] = again.output.splitlines()
            assert line.startswith("succeeded") and "hit" in line
            assert len(replicate.requests) == 3, "the second run was one look into the cache"


async def test_polling_ends_with_what_keyrelay_says(tmp_path: Path) -> None:
    """An error stops the poll with its sentence instead of being polled again."""
    async with running_relay(tmp_path / "data") as relay:
        ran = await run_example(
            "poll_job.py",
            "https://api.replicate.com/v1/predictions/one",
            KEYRELAY_URL=relay.url,
            KEYRELAY_TOKEN="kr_nonsense",
        )
        assert ran.status == 1
        assert ran.output.startswith("401: ")
        assert "Send a valid platform token" in ran.output
