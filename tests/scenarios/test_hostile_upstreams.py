"""The wire to upstreams under attack, in short; `make attack` runs it at full length."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attack.upstreams import ACTS, Figures, attack, body_of
from tests.support.caller import Answered

PROBLEM = ("content-type", "application/problem+json")


async def test_no_octet_crosses_from_one_call_or_tenant_to_another(tmp_path: Path) -> None:
    """Whatever an upstream sends: an answer is the call's own, whole or visibly cut, or ours."""
    figures = await attack(tmp_path / "data", 160)
    assert (figures.crossed, figures.wrong) == ([], [])
    assert figures.kinds.keys() == ACTS.keys()
    assert figures.calls == 160
    assert min(figures.whole, figures.cut, figures.refused) > 0
    assert figures.connections < 160  # the others were kept


@pytest.mark.parametrize(
    ("status", "mark", "body"),
    [
        (200, "ann-4", body_of("ann-3")),
        (200, "ann-3-surplus", body_of("ann-3")),
        (200, "ann-3", body_of("ann-3") + b"[bob-1]"),
        (502, "", b'{"detail": "[bob-1]"}'),
    ],
)
def test_what_would_cross_is_seen(status: int, mark: str, body: bytes) -> None:
    """The judge of that test can tell."""
    figures = Figures()
    fields = [PROBLEM] if status == 502 else [("x-mark", mark)]
    figures.judge("ann-3", "honest", "GET", Answered(status, fields, body))
    assert len(figures.crossed) == 1


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("honest", Answered(200, [("x-mark", "ann-3")], b"", complete=False)),
        ("too_long", Answered(200, [("x-mark", "ann-3")], body_of("ann-3"))),
        ("honest", Answered(500, [PROBLEM], b"")),
        ("honest", Answered(502, [PROBLEM], b"", complete=False)),
    ],
)
def test_what_would_be_wrong_is_seen(kind: str, answer: Answered) -> None:
    """A cut that no upstream made, and a broken answer that looks whole."""
    figures = Figures()
    figures.judge("ann-3", kind, "GET", answer)
    assert (figures.crossed, len(figures.wrong)) == ([], 1)
