"""Polls a long job until it is done, and leaves its result in the cache for everybody else.

The first look uses `cache=T` alone: if somebody has polled before, it costs nothing. While the job
is not done, `cache=T&invalidate` asks the provider again and keeps the newer answer. Run it twice:
the second run is one look into the cache.

Run:

    pip install httpx
    export KEYRELAY_URL=http://127.0.0.1:8000 KEYRELAY_TOKEN=kr_...
    python examples/poll_job.py https://api.replicate.com/v1/predictions/<id>

POLL_SECONDS is the pause between two polls (default 2).
"""

import os
import sys
import time

import httpx

KEYRELAY_URL = os.environ.get("KEYRELAY_URL", "http://127.0.0.1:8000")
KEYRELAY_TOKEN = os.environ["KEYRELAY_TOKEN"]
POLL_SECONDS = float(os.environ.get("POLL_SECONDS", "2"))
KEEP_SECONDS = 3600
FINAL = {"succeeded", "failed", "canceled", "completed", "done", "error"}

keyrelay = httpx.Client(
    base_url=KEYRELAY_URL,
    headers={"Authorization": f"Bearer {KEYRELAY_TOKEN}"},
    timeout=60,
)


def look(job: str, *, refresh: bool) -> str:
    """The job's status, from the cache unless a newer one is asked for."""
    query = {"server": job, "cache": str(int(time.time()) + KEEP_SECONDS)}
    if refresh:
        query["invalidate"] = ""
    answer = keyrelay.get("/proxy", params=query)
    if answer.is_error:
        sys.exit(f"{answer.status_code}: {answer.text}")
    status = str(answer.json()["status"])
    print(f"{status:<12} {answer.headers.get('cache-status', '')}")
    return status


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: poll_job.py URL-OF-THE-JOB")
    status = look(sys.argv[1], refresh=False)
    while status not in FINAL:
        time.sleep(POLL_SECONDS)
        status = look(sys.argv[1], refresh=True)


if __name__ == "__main__":
    main()
