"""Draws a run: `python -m bench.plot RESULT.json PICTURE.png`, in the venv that has matplotlib."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl  # type: ignore[import-not-found, unused-ignore]

mpl.use("Agg")
from matplotlib import pyplot, ticker  # type: ignore[import-not-found, unused-ignore]

GROUPS = (
    ("an answer, nothing done", (("uvicorn", "bare"),)),
    (
        "hit in the cache",
        (("nginx", "hit"), ("varnish", "hit"), ("keyrelay", "hit"), ("litellm-cache", "hit")),
    ),
    (
        "forward",
        (
            ("nginx", "forward"),
            ("keyrelay", "forward"),
            ("portkey", "forward"),
            ("litellm", "forward"),
        ),
    ),
    (
        "SSE, one chunk",
        (("nginx", "sse"), ("keyrelay", "sse"), ("portkey", "sse"), ("litellm", "sse")),
    ),
)
OURS, OTHERS = "#d9480f", "#868e96"


def draw(result: dict[str, Any], picture: Path) -> None:
    """One bar per server and path, on a logarithmic scale, with the spread of the rounds."""
    rows = {(row["server"], row["case"]): row for row in result["rows"]}
    figure, axes = pyplot.subplots(figsize=(9, 5.2), layout="constrained")
    ticks: list[float] = []
    names: list[str] = []
    at = 0.0
    for title, keys in GROUPS:
        present = [rows[key] for key in keys if key in rows]
        if not present:
            continue
        axes.text(0.01, at, title, transform=axes.get_yaxis_transform(), va="center", weight="bold")
        for row in present:
            at += 1
            bar(axes, at, row)
            ticks.append(at)
            names.append(row["server"].removesuffix("-cache"))
        at += 1.3
    axes.set_yticks(ticks, names)
    axes.set_ylim(at - 0.5, -0.8)
    finish(axes, result)
    figure.savefig(picture, dpi=110, metadata={"Software": None})


def bar(axes: Any, at: float, row: dict[str, Any]) -> None:
    """The median as a bar, the least and the most as a line, the number beside it."""
    colour = OURS if row["server"] == "keyrelay" else OTHERS
    cost, least, most = row["cpu"], row["cpu_least"], row["cpu_most"]
    axes.barh(at, cost, color=colour, height=0.8)
    axes.plot([least, most], [at, at], color="black", linewidth=1)
    number = f"{cost:,.0f}" if cost >= 10 else f"{cost:.1f}"
    axes.text(max(cost, most) * 1.08, at, number, va="center")


def finish(axes: Any, result: dict[str, Any]) -> None:
    """The axis, the title, and when it was measured."""
    axes.set_xscale("log")
    axes.set_xlim(left=1, right=60000)
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("CPU of the server's processes, microseconds per request (logarithmic)")
    cpus, made = result["machine"]["cpus"], result["made"][:10]
    axes.set_title(f"What a request costs: one machine, {cpus} CPUs, {made}", loc="left", pad=14)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
