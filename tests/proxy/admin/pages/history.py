"""A month of calls that never happened, as a small team makes them; the same for the same seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from proxy.usage import CallRow
from proxy.usage.latency import bucket
from proxy.usage.store import DAY, HOUR


@dataclass(frozen=True)
class Habit:
    """How one token uses one service. `pace`: calls in a busy hour; `price`: of one call."""

    token: str
    service: str
    host: str
    pace: float
    hits: float
    failures: float
    seconds: float
    price: float | None = None


HABITS = (
    Habit("web-frontend", "openai", "api.openai.com", 46, 0.44, 0.004, 1.3, 0.0042),
    Habit("support-bot", "anthropic", "api.anthropic.com", 30, 0.31, 0.009, 2.6, 0.0128),
    Habit("nightly-report", "openai", "api.openai.com", 9, 0.12, 0.002, 5.2, 0.031),
    Habit("research", "anthropic", "api.anthropic.com", 11, 0.52, 0.012, 4.1, 0.022),
    Habit("research", "tavily", "api.tavily.com", 22, 0.63, 0.02, 0.9),
    Habit("web-frontend", "elevenlabs", "api.elevenlabs.io", 5, 0.7, 0.01, 0.6),
    Habit("support-bot", "deepl", "api.deepl.com", 17, 0.58, 0.004, 0.24),
)


def history(now: float, ids: Mapping[str, str], days: int = 30) -> Iterator[CallRow]:
    """Rows from so many days ago until five minutes ago, by the ids of the tokens."""
    chance = random.Random(7)
    began = now - now % HOUR - days * DAY
    while began < now - 300:
        for habit in HABITS:
            for _ in range(_number(chance, habit.pace * _busy(began))):
                at = began + chance.random() * HOUR
                if at < now - 300:
                    yield _row(chance, habit, at, ids.get(habit.token, ""))
        began += HOUR


def _busy(began: float) -> float:
    """People work by day, and less at weekends."""
    hour, weekday = began % DAY / HOUR, int(began // DAY + 3) % 7
    day = 0.12 + max(0.0, math.sin((hour - 6) / 14 * math.pi)) ** 1.3
    return day * (0.35 if weekday > 4 else 1.0)


def _number(chance: random.Random, mean: float) -> int:
    return max(0, round(chance.gauss(mean, math.sqrt(mean))))


def _row(chance: random.Random, habit: Habit, at: float, token_id: str) -> CallRow:
    failed = chance.random() < habit.failures
    hit = not failed and chance.random() < habit.hits
    seconds = 0.002 + chance.random() * 0.004 if hit else chance.lognormvariate(0, 0.45)
    seconds *= 1 if hit else habit.seconds
    status, code = chance.choice(_FAILURES) if failed else (200, "")
    price = None if failed or habit.price is None else habit.price * chance.uniform(0.4, 1.9)
    tokens = 0 if price is None else int(price * 60_000)
    return CallRow(
        call=f"{chance.getrandbits(64):016x}",
        began=at,
        tenant="default",
        token=habit.token,
        token_id=token_id,
        service=habit.service,
        host=habit.host,
        method="POST",
        status=status,
        code=code,
        verdict="hit" if hit else "" if code else "stored",
        cut=0,
        received=chance.randrange(400, 9000),
        sent=chance.randrange(900, 40_000),
        seconds=seconds,
        waited=0.0,
        upstream_seconds=None if hit else seconds - 0.001,
        successful=int(not failed),
        went=int(not hit),
        hit=int(hit),
        joined=0,
        tokens_input=tokens * 3 // 4,
        tokens_output=tokens // 4,
        tokens_cached=0,
        cost=None if price is None else 0.0 if hit else price,
        saved=None if price is None else price if hit else 0.0,
        bucket=bucket(seconds),
    )


_FAILURES = (
    (429, ""),
    (429, ""),
    (500, ""),
    (529, ""),
    (504, "upstream_timeout"),
    (400, ""),
)
