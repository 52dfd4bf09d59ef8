"""Counts that several instances share, in Redis; while that is gone, this one's share of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from hashlib import sha1
from typing import Any, Final

from proxy.clock import Clock
from proxy.engine import PAUSE_SECONDS, Engine, Gone, Refused
from proxy.limits.budgets import Budgets
from proxy.limits.convoy import Convoy
from proxy.limits.counters import State
from proxy.limits.counts import Kind, Lack
from proxy.limits.instances import Instances
from proxy.limits.limiter import LIMITERS, States, Windows
from proxy.limits.rules import Bill
from proxy.limits.script import (
    NO_TOTAL,
    SCRIPT,
    TAKEN,
    Answer,
    Question,
    Total,
    Word,
    asked,
    is_late,
    read,
    time_of,
)
from proxy.limits.seen import Seen, refused
from proxy.limits.totals import Totals
from proxy.memo import bounded_put

NAMES: Final = 65_536
"""For how many windows it is remembered what Redis knows them by."""

SECONDS: Final = 0.5
"""How long a call waits for Redis at most before its share is looked at."""

LONG: Final = 10 * 365 * 86_400.0
"""How long Redis keeps what counts in all."""

CALM_SECONDS: Final = 10.0
"""So long after the last refusal it is said that Redis counts again: one that is just full takes
some and refuses some."""

_log = logging.getLogger("keyrelay.limits")

_NAME: Final = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


class SharedCounts:
    """Redis decides. What this instance lets through counts here too: for its share."""

    def __init__(
        self, engine: Engine, instances: Instances, kind: Kind, budgets: Budgets, clock: Clock
    ) -> None:
        self._engine = engine
        self._instances = instances
        self._kind: Kind = kind
        self._budgets = budgets
        self._clock = clock
        self._own = LIMITERS[kind](clock)
        self._seen = Seen(clock)
        self._totals = Totals(clock)
        self._names: dict[tuple[str, str], str] = {}
        self._ask_at = float("-inf")
        self._refused_at: float | None = None
        self._convoy: Convoy[Question, Answer] = Convoy(self)
        engine.when_back(lambda: self._tell(everything=True))  # another may stand in, and know less
        instances.when_beaten(self._keep_up)
        instances.when_forgotten(lambda: self._tell(everything=True))

    async def start(self) -> None:
        """Takes up what was spent of budgets."""
        await self._budgets.start()
        self._convoy.start()

    async def stop(self) -> None:
        """Sends and writes down the rest."""
        await self._convoy.stop()
        await self._budgets.stop()

    def become(self, kind: Kind) -> None:
        """The same kind goes on counting; another begins anew."""
        if kind != self._kind:
            self._kind, self._own = kind, LIMITERS[kind](self._clock)
            self._names, self._seen = {}, Seen(self._clock)

    # Together.

    async def take(self, bill: Bill) -> Lack | None:
        """As the seam has it; a round trip at most."""
        short = bill.allowance
        if short is not None and not self._totals.has_room(self._short(bill), short.until):
            return Lack("memory")
        if self._is_together():
            question = self._question("take", bill)
            self._remind(bill, question.total)
            try:
                answer = await self._convoy.ask(question)
            except Gone as error:
                self._part(error)
                return self._take_apart(bill)
            if answer.code == TAKEN:
                self._note(bill, question.total)
                return None
            if answer.code == NO_TOTAL:
                return self._no_total(bill)
            return Lack("windows", refused(question, answer))
        return self._take_apart(bill)

    def look(self, bill: Bill) -> States:
        """As Redis told last, or of this instance's share."""
        windows, total = bill.windows, self._total(bill)
        if self._is_together():
            states = self._seen.look(self._keys(bill), windows)
        else:
            states = self._own.look(self._shares(windows))
        if total is None:
            return states
        return (*states, State(self._left(bill, total), self._seconds(bill)))

    def give_back(self, bill: Bill, taken: float | None = None) -> None:
        """As the seam has it, behind what was asked before."""
        self._own.give_back(bill.windows, taken)
        age = 0.0 if taken is None else self._clock.monotonic() - taken
        question = self._question("back", bill)._replace(age=max(0.0, age))
        if bill.budget is not None and self._budgets.is_of_now(taken, bill.budget.ever):
            self._budgets.count(bill.budget.subject, -1, bill.budget.ever)
        elif bill.budget is not None:
            question = question._replace(total=None)
        if self._is_together():
            self._convoy.post(question)
        else:
            self.lost(question)

    def _note(self, bill: Bill, total: Total | None) -> None:
        self._own.note(bill.windows)
        if total is not None:
            self._totals.use(total.key)
        self._count(bill)

    def _count(self, bill: Bill) -> None:
        if bill.budget is not None:
            self._budgets.count(bill.budget.subject, 1, bill.budget.ever)

    def _no_total(self, bill: Bill) -> Lack:
        if bill.budget is not None:
            return Lack("budget", (State(0, self._budgets.left(bill.budget.ever)),))
        return Lack("allowance")

    def _remind(self, bill: Bill, total: Total | None) -> None:
        """Says once what is written of calls in all, before any is taken: this Redis may have been
        without us for long, or be put back to what it was."""
        if total is None or bill.budget is None or not (bill.budget.ever and total.floor):
            return
        if not self._totals.knows(total.key):
            self._convoy.post(Question("restore", bill.tenant, self._kind, (), (), total))

    # Apart.

    def _is_together(self) -> bool:
        return self._engine.up and self._clock.monotonic() >= self._ask_at

    def _part(self, error: Gone) -> None:
        """For a moment nobody asks, also where Redis is there and refuses."""
        now = self._clock.monotonic()
        self._ask_at = now + PAUSE_SECONDS
        if isinstance(error, Refused):
            if self._refused_at is None:
                _log.error(
                    "limits can't be counted in Redis, and are this instance's share: %s", error
                )
            self._refused_at = now

    def _come_together(self) -> None:
        since = self._refused_at
        if since is not None and self._clock.monotonic() >= since + CALM_SECONDS:
            self._refused_at = None
            _log.warning("limits are counted in Redis again")

    def _take_apart(self, bill: Bill) -> Lack | None:
        total = self._total(bill)
        if total is not None and not self._totals.share(bill.tenant, total, self._instances.count):
            return self._no_total(bill)
        if bill.windows:
            taken, states = self._own.take(self._shares(bill.windows))
            if not taken:
                return Lack("windows", states)
        if total is not None:
            self._totals.count_apart(total.key, 1)
        self._count(bill)
        return None

    def _shares(self, windows: Windows) -> Windows:
        count = self._instances.count
        return tuple([one._replace(amount=max(1, one.amount // count)) for one in windows])

    def _left(self, bill: Bill, total: Total) -> int:
        if self._is_together():
            return max(0, total.amount - total.floor)
        return self._totals.share(bill.tenant, total, self._instances.count)

    def _seconds(self, bill: Bill) -> float:
        if bill.allowance is not None:
            return bill.allowance.until - self._clock.now()
        return self._budgets.left(bill.budget is not None and bill.budget.ever)

    def _keep_up(self) -> None:
        """Hears what others have counted, so that a share of what is left is one."""
        self._come_together()
        self._tell(everything=False)
        for tenant, total in self._totals.recent():
            self._convoy.post(Question("look", tenant, self._kind, (), (), total))

    def _tell(self, everything: bool) -> None:
        """What the others could not know; Redis is there again, perhaps without its memory."""
        for tenant, total in self._totals.untold(everything):
            self._convoy.post(Question("restore", tenant, self._kind, (), (), total))

    # Questions.

    def _question(self, word: Word, bill: Bill) -> Question:
        return Question(
            word, bill.tenant, self._kind, bill.windows, self._keys(bill), self._total(bill)
        )

    def _keys(self, bill: Bill) -> tuple[str, ...]:
        return tuple([self._name(bill.tenant, window.key) for window in bill.windows])

    def _name(self, tenant: str, key: str) -> str:
        known = self._names.get((tenant, key))
        if known is None:
            known = self._engine.key("limits", tenant, self._kind, key)
            bounded_put(self._names, (tenant, key), known, NAMES)
        return known

    def _total(self, bill: Bill) -> Total | None:
        _, _, allowance, budget = bill
        if budget is not None:
            budgets, subject, ever = self._budgets, budget.subject, budget.ever
            period = budgets.period(ever)
            name = self._engine.key("limits", bill.tenant, "budget", period, subject)
            floor = self._totals.floor(name, budgets.spent(subject, ever))
            return Total(name, budget.calls, floor, min(LONG, budgets.left(ever)))
        if allowance is not None:
            name, left = self._short(bill), allowance.until - self._clock.now()
            return Total(name, allowance.calls, self._totals.floor(name, 0), left)
        return None

    def _short(self, bill: Bill) -> str:
        serial = "" if bill.allowance is None else bill.allowance.serial
        return self._engine.key("limits", bill.tenant, "short", serial)

    # On their way.

    async def carry(self, questions: Sequence[Question]) -> Sequence[Answer]:
        """Asks Redis, and takes in what it says; raises Gone."""

        async def ask(client: Any) -> Sequence[Answer]:
            if self._engine.place.kind != "cluster":
                return await self._asked(client, questions)
            return await self._asked_by_tenant(client, questions)

        answers = await self._engine.run(ask, SECONDS)
        for question, answer in zip(questions, answers, strict=True):
            self._seen.learn(question, answer)
            if question.total is not None:
                self._totals.learn(question.tenant, question.total, answer.total)
        return answers

    def unheard(self, question: Question, answer: Answer) -> None:
        """A call that has gone gives back what it took."""
        if question.word == "take" and answer.code == TAKEN:
            self._convoy.post(question._replace(word="back"))

    def lost(self, question: Question) -> None:
        """To be told later."""
        total = question.total
        if total is not None and question.word == "back":
            self._totals.count_apart(total.key, -1)
        elif total is not None and question.word == "restore":
            self._totals.untell(total)

    async def _asked(self, client: Any, questions: Sequence[Question]) -> list[Answer]:
        for _ in range(2):  # the other's clock may have been put right
            keys, words = asked(questions, self._seen.until(SECONDS))
            told = await _run(client, keys, words)
            self._seen.tell_time(time_of(told))
            if not is_late(told):
                return read(questions, told)
        raise TimeoutError

    async def _asked_by_tenant(self, client: Any, questions: Sequence[Question]) -> list[Answer]:
        """What is counted for one tenant is on one node."""
        tenants: dict[str, list[int]] = {}
        for at, question in enumerate(questions):
            tenants.setdefault(question.tenant, []).append(at)
        loads = [[questions[at] for at in places] for places in tenants.values()]
        found = await asyncio.gather(*(self._asked(client, load) for load in loads))
        answers = {
            at: answer
            for places, told in zip(tenants.values(), found, strict=True)
            for at, answer in zip(places, told, strict=True)
        }
        return [answers[at] for at in range(len(questions))]


async def _run(client: Any, keys: list[str], words: list[str | int]) -> Sequence[int]:
    from redis.exceptions import NoScriptError  # noqa: PLC0415 - loaded where there is a Redis

    told: Sequence[int]
    try:
        told = await client.evalsha(_NAME, len(keys), *keys, *words)
    except NoScriptError:
        told = await client.eval(SCRIPT, len(keys), *keys, *words)
    return told
