"""What many calls come to, and how that is told: the same in answers, files and tables. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.usage.latency import quantile


@dataclass(frozen=True, slots=True)
class Sums:
    """What a group of calls comes to. `group`: the values that they share, by name.

    `hits` came from the cache, `joined` from another call under way; `upstream` went out. Tokens
    are those of calls that went out, but `tokens_saved` those of the others. `cost` and `saved`
    None: none of the calls has a price. Sizes in octets, times in seconds. `latencies`: how many
    calls by bucket of their duration.
    """

    group: Mapping[str, Any]
    calls: int = 0
    successful: int = 0
    hits: int = 0
    joined: int = 0
    upstream: int = 0
    received: int = 0
    sent: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    upstream_seconds: float = 0.0
    waited: float = 0.0
    tokens_input: int = 0
    tokens_output: int = 0
    tokens_cached: int = 0
    tokens_saved: int = 0
    cost: float | None = None
    saved: float | None = None
    latencies: Mapping[int, int] = field(default_factory=dict)

    def percentile(self, share: float) -> float | None:
        """Seconds that this share of the calls did not exceed."""
        return quantile(share, self.latencies, self.slowest)

    @property
    def success_rate(self) -> float | None:
        """Of all calls; None where there are none."""
        return self.successful / self.calls if self.calls else None

    @property
    def average(self) -> float | None:
        """Seconds a call took; None where there are none."""
        return self.seconds / self.calls if self.calls else None


def document(sums: Sums) -> dict[str, Any]:
    """The sums as JSON; see docs/usage.md."""
    return {
        **sums.group,
        "calls": sums.calls,
        "successful": sums.successful,
        "errors": sums.calls - sums.successful,
        "success_rate": _rounded(sums.success_rate),
        "hits": sums.hits,
        "joined": sums.joined,
        "calls_saved": sums.hits + sums.joined,
        "upstream_calls": sums.upstream,
        "bytes_in": sums.received,
        "bytes_out": sums.sent,
        "seconds": {
            "average": _rounded(sums.average),
            "p50": _rounded(sums.percentile(0.5)),
            "p90": _rounded(sums.percentile(0.9)),
            "p99": _rounded(sums.percentile(0.99)),
            "longest": _rounded(sums.slowest if sums.calls else None),
        },
        "tokens": {
            "input": sums.tokens_input,
            "output": sums.tokens_output,
            "cached": sums.tokens_cached,
            "saved": sums.tokens_saved,
        },
        "cost": _rounded(sums.cost, 9),
        "saved": _rounded(sums.saved, 9),
    }


def _rounded(number: float | None, digits: int = 6) -> float | None:
    """Sums of fractions without the noise of their last digits."""
    return None if number is None else round(number, digits)
