"""Small questions to one Redis that go together: what is asked while others are under way is the
next load. Under load a round trip, and all that a client does for it, is shared by many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

Words = tuple[Any, ...]
"""A command as it is sent."""

Carry = Callable[[Sequence[Words]], Awaitable[Sequence[Any]]]
"""Brings commands there: an answer to each, which may be an error. Where it raises, that is the
answer to all."""

MOST: Final = 64
"""Questions of one load: how long those behind it wait."""

UNDER_WAY: Final = 2
"""Loads at once: where one is held up on its way, the next is not."""


class Question:
    """`answer` may be an error: whoever waits raises it. `sent`: it is on its way."""

    __slots__ = ("answer", "sent", "words")

    def __init__(self, words: Words) -> None:
        self.words = words
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.sent = False


class Loads:
    """Of one Redis."""

    def __init__(self, carry: Carry) -> None:
        self._carry = carry
        self._waiting: list[Question] = []
        self._drivers: set[asyncio.Task[None]] = set()
        self._driving = 0  # those that still look for what waits: a task is done a turn later

    def ask(self, words: Words) -> Question:
        """It goes at the end of this turn of the loop, or when another load is back."""
        question = Question(words)
        self._waiting.append(question)
        if self._driving < UNDER_WAY:
            self._driving += 1
            driver = asyncio.create_task(self._drive(), name="keyrelay-loads")
            self._drivers.add(driver)
            driver.add_done_callback(self._drivers.discard)
        return question

    async def close(self) -> None:
        """Sends what waits."""
        while self._drivers:
            await asyncio.wait(self._drivers)

    async def _drive(self) -> None:
        try:
            while self._waiting:
                load, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                load = [one for one in load if not one.answer.done()]  # those wait no longer
                if load:
                    await self._send(load)
        finally:
            self._driving -= 1

    async def _send(self, load: list[Question]) -> None:
        for one in load:
            one.sent = True
        try:
            answers = await self._carry([one.words for one in load])
        except Exception as error:  # theirs who asked, not the driver's
            answers = [error] * len(load)
        for one, answer in zip(load, answers, strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)
