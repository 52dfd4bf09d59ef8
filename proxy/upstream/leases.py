"""Slots that several instances share, in Redis: each says once a second what it holds. What one
holds that says nothing any more is free after a few seconds.

A scope is what a bound holds for: all calls, those of a tenant, those for a service. Instances with
calls that wait take turns: one that was refused has a place in a line.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha1
from secrets import token_hex
from typing import Any, Final, Literal, NamedTuple

from proxy.engine import Engine, Gone
from proxy.limits.convoy import Convoy

BEAT_SECONDS: Final = 1.0
LEASE_SECONDS: Final = 5.0
LINE_SECONDS: Final = 0.5
"""So long is a place in the line kept for an instance that does not ask again."""

SECONDS: Final = 0.5
"""How long Redis may take."""

Scope = tuple[str, float]
"""A name, and how many calls at once."""


class Ask(NamedTuple):
    """`wait` is a `take` that gets a place in the line where it is refused."""

    word: Literal["take", "wait", "back", "beat"]
    scopes: tuple[Scope, ...] = ()


class Leases:
    """What this instance holds, as Redis knows it; `held`: calls by scope; `up`: whether Redis can
    be asked."""

    def __init__(self, engine: Engine) -> None:
        self.up = True
        self.held: Counter[str] = Counter()
        self._engine = engine
        self._id = token_hex(8)
        self._changed: list[Callable[[], None]] = []
        self._prefix = engine.key("slots", "all")
        self._keys = tuple(f"{self._prefix}:{name}" for name in ("held", "seen", f"of:{self._id}"))
        self._convoy: Convoy[Ask, str] = Convoy(self)
        self._beating: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def when_changed(self, act: Callable[[], None]) -> None:
        """To be called when Redis can't be asked any more, and when it can again."""
        self._changed.append(act)

    async def start(self) -> None:
        """From now on this instance is known."""
        self._convoy.start()
        self._beating = asyncio.create_task(self._beat_forever(), name="keyrelay-leases")

    async def stop(self) -> None:
        """Gives back what is left."""
        self._stopping.set()
        if self._beating is not None:
            await self._beating
        self.held.clear()
        self._convoy.post(Ask("beat"))
        await self._convoy.stop()

    async def take(self, scopes: tuple[Scope, ...], waits: bool) -> str:
        """One call more in each scope; or the name of that which is full, and none. Raises Gone."""
        return await self._convoy.ask(Ask("wait" if waits else "take", scopes))

    def note(self, scopes: tuple[Scope, ...]) -> None:
        """A call that goes while nobody can be asked; Redis hears of it when it is back."""
        self.held.update(name for name, _ in scopes)

    def give_back(self, scopes: tuple[Scope, ...]) -> None:
        """One call less in each."""
        back = Ask("back", scopes)
        if self.up:
            self._convoy.post(back)
        else:
            self.lost(back)

    async def beat(self) -> None:
        """Says what is held: whatever went wrong before is right after."""
        with suppress(Gone):
            await self._convoy.ask(Ask("beat"))

    async def _beat_forever(self) -> None:
        while not self._stopping.is_set():
            await self.beat()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), BEAT_SECONDS)

    # On their way.

    async def carry(self, questions: Sequence[Ask]) -> Sequence[str]:
        """Asks Redis; a beat after all else, so that it tells what came of that."""
        asked = [one for one in questions if one.word != "beat"]
        found = iter(await self._ask(asked) if asked else ())
        answers = ["" if one.word == "beat" else next(found) for one in questions]
        for one, full in zip(questions, answers, strict=True):
            if one.word == "back":
                self.held.subtract(name for name, _ in one.scopes)
            elif not full:
                self.held.update(name for name, _ in one.scopes)
        if len(asked) < len(questions):
            self.held = +self.held
            await self._ask([Ask("beat", tuple(self.held.items()))])
        return answers

    def unheard(self, question: Ask, answer: str) -> None:
        """A call that has gone gives back what it took."""
        if question.word in ("take", "wait") and not answer:
            self._convoy.post(Ask("back", question.scopes))

    def lost(self, question: Ask) -> None:
        """The next beat tells."""
        if question.word == "back":
            self.held.subtract(name for name, _ in question.scopes)

    async def _ask(self, questions: Sequence[Ask]) -> list[str]:
        words: list[str | float] = [self._id, self._prefix, LEASE_SECONDS, LINE_SECONDS]
        for word, scopes in questions:
            words += (word, len(scopes), *(part for scope in scopes for part in scope))

        async def ask(client: Any) -> list[bytes]:
            found: list[bytes] = await _run(client, (*self._keys, *words))
            return found

        try:
            found = await self._engine.run(ask, SECONDS)
        except Gone:
            self._become(up=False)
            raise
        self._become(up=True)
        return [name.decode() for name in found]

    def _become(self, *, up: bool) -> None:
        if self.up != up:
            self.up = up
            for act in self._changed:
                act()


_SCRIPT: Final = """
local held, seen, mine = KEYS[1], KEYS[2], KEYS[3]
local me, prefix, lease, patience = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local a = 4
local function argument() a = a + 1 return ARGV[a] end

local function add(of, scope, count)
  if redis.call('HINCRBY', of, scope, count) <= 0 then redis.call('HDEL', of, scope) end
end

local function drop(who)
  local of = prefix .. ':of:' .. who
  local all = redis.call('HGETALL', of)
  for i = 1, #all, 2 do add(held, all[i], -all[i + 1]) end
  redis.call('DEL', of)
  redis.call('ZREM', seen, who)
end

local function sum_up()
  redis.call('DEL', held)
  for _, who in ipairs(redis.call('ZRANGE', seen, 0, -1)) do
    local all = redis.call('HGETALL', prefix .. ':of:' .. who)
    for i = 1, #all, 2 do add(held, all[i], all[i + 1]) end
  end
end

local function line(scope) return prefix .. ':line:' .. scope, prefix .. ':asked:' .. scope end

local function leave(scope, who)
  local places, asked = line(scope)
  redis.call('ZREM', places, who)
  redis.call('ZREM', asked, who)
end

local function ahead(scope)
  local places, asked = line(scope)
  if redis.call('ZCARD', places) == 0 then return 0 end
  local gone = redis.call('ZRANGEBYSCORE', asked, '-inf', '(' .. (now - patience))
  for _, who in ipairs(gone) do leave(scope, who) end
  return redis.call('ZRANK', places, me) or redis.call('ZCARD', places)
end

local function stand(scope)
  local places, asked = line(scope)
  redis.call('ZADD', places, 'NX', now, me)
  redis.call('ZADD', asked, now, me)
  redis.call('EXPIRE', places, 60)
  redis.call('EXPIRE', asked, 60)
end

local function take(scopes, waits)
  for _, s in ipairs(scopes) do
    local count = tonumber(redis.call('HGET', held, s.name)) or 0
    if count + ahead(s.name) >= s.number then
      if waits then stand(s.name) end
      return s.name
    end
  end
  for _, s in ipairs(scopes) do
    add(held, s.name, 1)
    add(mine, s.name, 1)
    leave(s.name, me)
  end
  return ''
end

local words = {
  take = function(scopes) return take(scopes, false) end,
  wait = function(scopes) return take(scopes, true) end,
  back = function(scopes)
    for _, s in ipairs(scopes) do
      if redis.call('HEXISTS', mine, s.name) == 1 then
        add(held, s.name, -1)
        add(mine, s.name, -1)
      end
    end
    return ''
  end,
  beat = function(scopes)
    drop(me)
    for _, s in ipairs(scopes) do
      add(held, s.name, s.number)
      add(mine, s.name, s.number)
    end
    redis.call('ZADD', seen, now, me)
    if redis.call('SET', prefix .. ':summed', 1, 'NX', 'PX', 2000) then sum_up() end
    return ''
  end,
}

for _, who in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', now - lease)) do drop(who) end
local out = {}
while a < #ARGV do
  local word, scopes = argument(), {}
  for i = 1, tonumber(argument()) do
    scopes[i] = {name = argument(), number = tonumber(argument())}
  end
  out[#out + 1] = words[word](scopes)
end
redis.call('ZADD', seen, now, me)
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, 3600) end
return out
"""
_NAME: Final = sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


async def _run(client: Any, words: Sequence[str | float]) -> list[bytes]:
    from redis.exceptions import NoScriptError  # noqa: PLC0415 - loaded where there is a Redis

    found: list[bytes]
    try:
        found = await client.evalsha(_NAME, 3, *words)
    except NoScriptError:
        found = await client.eval(_SCRIPT, 3, *words)
    return found
