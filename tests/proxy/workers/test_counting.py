"""Limits that hold for all workers together."""

from __future__ import annotations

from math import inf

from proxy.grant import Allowance
from proxy.limits.counts import Lack
from proxy.limits.rules import Bill, Budget, Window
from proxy.workers.counting import TeamCounts
from tests.proxy.workers.conftest import Office, until

WINDOW = Window("w", 4, 60, "4/minute", "4 a minute")


async def two(office: Office) -> tuple[TeamCounts, TeamCounts]:
    made = []
    for _ in range(2):
        companion = office.worker()
        made.append(TeamCounts(companion, "sliding", office.clock))
        await companion.start()
    return made[0], made[1]


def whats(lacks: list[Lack | None]) -> list[str]:
    return ["" if lack is None else lack.what for lack in lacks]


async def test_a_window_is_one_for_all(office: Office) -> None:
    """To the call; what is given back by one the other may take."""
    one, other = await two(office)
    bill = Bill("t", (WINDOW,))
    assert one.look(bill)[0].left == 4
    lacks = [await counts.take(bill) for counts in (one, other, one, other, one)]
    assert whats(lacks) == ["", "", "", "", "windows"]
    assert one.look(bill)[0].left == 0
    other.give_back(bill)
    assert await one.take(bill) is None


async def test_budgets_and_allowances_are_one_for_all(office: Office) -> None:
    """Also for a coordinator that comes after one that died, and what was made in between."""
    one, other = await two(office)
    for bill in (
        Bill("t", (), None, Budget("b", 8)),
        Bill("t", (), None, Budget("b", 8, ever=True)),
        Bill("t", (WINDOW._replace(amount=99),), Allowance("a", 8, 1e12)),
    ):
        assert whats([await counts.take(bill) for counts in (one, other)]) == ["", ""]
        assert one.look(bill)[-1].left == 7
    spent, short = Bill("t", (), None, Budget("b", 8)), bill
    ever = Bill("t", (), None, Budget("b", 8, ever=True))
    assert one.look(ever)[-1].seconds == inf
    await office.gone()
    for bill in (spent, ever, short):
        lacks = [await counts.take(bill) for counts in (one, other) for _ in range(5)]
        assert whats(lacks).count("") == 6
    await office.back()
    await until(lambda: office.counts.look(short)[-1].left == 0)
    await until(lambda: office.counts.look(spent)[-1].left == 0)
    await until(lambda: office.counts.look(ever)[-1].left == 0)
    lacks = [await other.take(bill) for bill in (spent, ever, short)]
    assert whats(lacks) == ["budget", "budget", "allowance"]


async def test_alone_each_has_a_share(office: Office) -> None:
    """Of every window, until there is a coordinator again."""
    one, other = await two(office)
    await office.gone()
    bill = Bill("t", (WINDOW,))
    lacks = [await counts.take(bill) for counts in (one, other) for _ in range(3)]
    assert whats(lacks) == ["", "", "windows"] * 2
    one.give_back(bill)
    assert await one.take(bill) is None
    one.become("moving")
    one.become("moving")
    await office.back()
