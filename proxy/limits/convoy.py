"""Questions that go on their way together, and in order: what comes while others are under way is
the next load. Under load a round trip is shared by many."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Generic, Protocol, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")
_Asked_contra = TypeVar("_Asked_contra", contravariant=True)
_Answered = TypeVar("_Answered")

MOST: Final = 256
"""Questions of one load: how long it keeps a Redis from everybody else."""


class Carrier(Protocol[_Asked_contra, _Answered]):
    """Who brings loads to where they are answered."""

    async def carry(self, questions: Sequence[_Asked_contra]) -> Sequence[_Answered]:
        """An answer to each; where it raises, all who asked hear of it."""
        ...

    def unheard(self, question: _Asked_contra, answer: _Answered) -> None:
        """Whoever asked no longer waits for it."""
        ...

    def lost(self, question: _Asked_contra) -> None:
        """One that was posted could not be brought."""
        ...


class Convoy(Generic[Question, Answer]):
    """Sends loads, one at a time."""

    def __init__(self, carrier: Carrier[Question, Answer]) -> None:
        self._carrier = carrier
        self._waiting: list[tuple[Question, asyncio.Future[Answer] | None]] = []
        self._news = asyncio.Event()
        self._driving: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """From now on loads go."""
        self._driving = asyncio.create_task(self._drive(), name="keyrelay-convoy")

    async def stop(self) -> None:
        """Sends the rest."""
        self._stopping = True
        self._news.set()
        if self._driving is not None:
            await self._driving

    async def ask(self, question: Question) -> Answer:
        """The answer, as soon as the loads before have come back."""
        turn: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, turn))
        self._news.set()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._carrier.unheard(question, turn.result())  # it came, and nobody took it
            raise

    def post(self, question: Question) -> None:
        """Sends what needs no answer."""
        self._waiting.append((question, None))
        self._news.set()

    async def _drive(self) -> None:
        while not self._stopping:
            await self._news.wait()
            self._news.clear()
            await self._send_all()

    async def _send_all(self) -> None:
        while self._waiting:
            load, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            try:
                answers = await self._carrier.carry([question for question, _ in load])
            except Exception as error:  # theirs who asked, not the driver's
                self._fail(load, error)
            else:
                self._deliver(load, answers)

    def _deliver(
        self,
        load: list[tuple[Question, asyncio.Future[Answer] | None]],
        answers: Sequence[Answer],
    ) -> None:
        for (question, turn), answer in zip(load, answers, strict=True):
            if turn is None:
                continue
            if turn.done():
                self._carrier.unheard(question, answer)
            else:
                turn.set_result(answer)

    def _fail(
        self, load: list[tuple[Question, asyncio.Future[Answer] | None]], error: Exception
    ) -> None:
        for question, turn in load:
            if turn is None:
                self._carrier.lost(question)
            elif not turn.done():
                turn.set_exception(error)
