"""What Redis is asked about bills, and how its answers are read: one script for a load of them.

The time is Redis' own: instances whose clocks differ count in the same windows. A load says until
when it is good: what a Redis finds that stood still has been given up, and counted otherwise. An
operation is a word, the number of its windows with amount and seconds of each, and of its total the
amount, what it was known to be at least, the milliseconds to keep it, and what is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from proxy.limits.rules import Window

Word = Literal["take", "back", "look", "restore"]

TAKEN: Final = 0
NO_WINDOW: Final = 1
NO_TOTAL: Final = 2
TIME: Final = 2
"""So many numbers of an answer are the time."""


class Total(NamedTuple):
    """So many calls in all, counted under one key. `floor`: what the count is where Redis has
    forgotten it; `seconds`: how long it counts; `more`: calls to add when it is restored."""

    key: str
    amount: int
    floor: int
    seconds: float
    more: int = 0


class Question(NamedTuple):
    """One operation on what is counted for one tenant. `age`: seconds since that was taken which is
    given back."""

    word: Word
    tenant: str
    kind: str
    windows: tuple[Window, ...]
    keys: tuple[str, ...]
    total: Total | None = None
    age: float = 0.0


class Answer(NamedTuple):
    """`code`: TAKEN, or what lacked; `windows`: two numbers for each, the calls of the fixed window
    before and of this one, or the calls of a moving one and when the first that counts was made (in
    microseconds); `total`: how many were counted; `now`: seconds by Redis' clock."""

    code: int
    now: float
    windows: tuple[tuple[int, int], ...]
    total: int


def asked(questions: Sequence[Question], until: float) -> tuple[list[str], list[str | int]]:
    """The keys and arguments of the script. `until`: by Redis' clock; 0: that is not known yet."""
    keys: list[str] = []
    words: list[str | int] = [int(until * 1e6)]
    for word, _, kind, windows, names, total, age in questions:
        keys += names
        words += (f"{word} {kind} {int(age * 1e6)}", len(windows))
        for window in windows:
            words += (window.amount, window.seconds)
        if total is None:
            words.append("")
        else:
            keys.append(total.key)
            kept = max(1, int(total.seconds * 1000))
            words += (total.amount, total.floor, kept, total.more)
    return keys, words


def time_of(told: Sequence[int]) -> float:
    """When Redis answered, by its clock."""
    return told[0] + told[1] / 1e6


def is_late(told: Sequence[int]) -> bool:
    """Whether the load came too late, and nothing of it was done."""
    return len(told) == TIME


def read(questions: Sequence[Question], told: Sequence[int]) -> list[Answer]:
    """The answers, of as many numbers as each question has."""
    now, at, answers = time_of(told), TIME, []
    for question in questions:
        code, total = told[at], told[at + 1]
        ends = at + 2 + 2 * len(question.windows)
        pairs = told[at + 2 : ends]
        answers.append(Answer(code, now, tuple(zip(pairs[::2], pairs[1::2], strict=True)), total))
        at = ends
    return answers


SCRIPT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local out, k, a = {tonumber(time[1]), tonumber(time[2])}, 0, 0

local function argument() a = a + 1 return ARGV[a] end
local function number() return tonumber(argument()) end
local function name() k = k + 1 return KEYS[k] end
local function tell(one) out[#out + 1] = one end

local good_until = number()
if good_until > 0 and now > good_until then return out end

local sliding = {
  look = function(w)
    local size = w.seconds * 1000000
    local index, before, current = math.floor(now / size), 0, 0
    local rest = 1 - now % size / size
    local i, b, c = string.match(redis.call('GET', w.key) or '', '(%d+) (%d+) (%d+)')
    i = tonumber(i)
    if i and i >= index then
      if i > index then index, rest = i, 1 end
      before, current = tonumber(b), tonumber(c)
    elseif i == index - 1 then
      before = tonumber(c)
    end
    w.index, w.first, w.second = index, before, current
    w.ends = (index + 2) * size
    return math.floor(before * rest + current) < w.amount
  end,
  add = function(w)
    w.second = w.second + 1
    local held = string.format('%d %d %d', w.index, w.first, w.second)
    redis.call('SET', w.key, held, 'PX', math.ceil((w.ends - now) / 1000))
  end,
  back = function(w, taken)
    local held = redis.call('GET', w.key) or ''
    local i, b, c = string.match(held, '(%d+) (%d+) (%d+)')
    if not i then return end
    local index = math.floor(taken / (w.seconds * 1000000))
    if index == tonumber(i) and tonumber(c) > 0 then
      c = c - 1
    elseif index == i - 1 and tonumber(b) > 0 then
      b = b - 1
    end
    redis.call('SET', w.key, string.format('%d %d %d', i, b, c), 'KEEPTTL')
  end,
}

local moving = {
  look = function(w)
    local ends = now - w.seconds * 1000000
    local function at(place) return tonumber(redis.call('LINDEX', w.key, place)) or now end
    while at(99) <= ends do redis.call('LPOP', w.key, 100) end
    while at(0) <= ends do redis.call('LPOP', w.key) end
    local first = redis.call('LINDEX', w.key, 0)
    w.first = redis.call('LLEN', w.key)
    if w.first > w.amount then first = redis.call('LINDEX', w.key, w.first - w.amount) end
    w.second = tonumber(first) or now
    return w.first < w.amount
  end,
  add = function(w)
    w.first = w.first + 1
    redis.call('RPUSH', w.key, string.format('%d', now))
    redis.call('PEXPIRE', w.key, w.seconds * 1000)
  end,
  back = function(w, taken)
    local count = redis.call('LLEN', w.key)
    if count == 0 or taken <= now - w.seconds * 1000000 then return end
    local low, high = 0, count
    while low < high do
      local middle = math.floor((low + high) / 2)
      if tonumber(redis.call('LINDEX', w.key, middle)) < taken then
        low = middle + 1
      else
        high = middle
      end
    end
    local first = redis.call('LINDEX', w.key, math.min(low, count - 1))
    redis.call('LREM', w.key, 1, first)
  end,
}

local function each(windows, act)
  local all = true
  for _, w in ipairs(windows) do all = act(w) ~= false and all end
  return all
end

local function keep(t, count)
  redis.call('SET', t.key, string.format('%d', count), 'PX', t.kept)
end

local words = {
  take = function(kind, windows, t)
    local held = t and tonumber(redis.call('GET', t.key))
    local count = t and (held or t.floor) or 0
    local room = each(windows, kind.look)
    if t and count >= t.amount then return 2, count end
    if not room then return 1, count end
    each(windows, kind.add)
    if held then
      redis.call('INCR', t.key)
    elseif t then
      keep(t, count + 1)
    end
    return 0, count + 1
  end,
  back = function(kind, windows, t, taken)
    for _, w in ipairs(windows) do kind.back(w, taken) end
    each(windows, kind.look)
    local count = t and tonumber(redis.call('GET', t.key)) or 0
    if count > 0 then count = redis.call('DECR', t.key) end
    return 0, count
  end,
  look = function(kind, windows, t)
    return 0, tonumber(redis.call('GET', t.key)) or t.floor
  end,
  restore = function(kind, windows, t)
    local held = tonumber(redis.call('GET', t.key)) or 0
    local count = math.max(held, t.floor) + t.more
    keep(t, count)
    return 0, count
  end,
}

while a < #ARGV do
  local word, kind, age = string.match(argument(), '(%a+) (%a+) (%d+)')
  local windows, t = {}, nil
  for i = 1, number() do
    windows[i] = {key = name(), amount = number(), seconds = number()}
  end
  local amount = argument()
  if amount ~= '' then
    t = {key = name(), amount = tonumber(amount), floor = number()}
    t.kept, t.more = number(), number()
  end
  local code, count = words[word](kind == 'moving' and moving or sliding, windows, t, now - age)
  tell(code)
  tell(count)
  for _, w in ipairs(windows) do tell(w.first) tell(w.second) end
end
return out
"""
"""One bill after another, each as a whole."""
