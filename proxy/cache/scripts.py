"""What Redis does in one step: nobody sees half of it. Each script stays in one slot of a cluster.

A key of the cache is a hash, its *shelf*: a field per stored answer (its label, see `shelf.py`),
with the sealed head and a small body as the value; a large body lies in chunks beside it. What a
tenant has on shelves stands in a sorted set, its *register*, by the end of each answer's time, and
summed up in a hash.
"""

from __future__ import annotations

from typing import Final

from proxy.cache.leases import LAND
from proxy.engine import Script

_LABEL: Final = """
local function read(field)
  local number, ends, chunks, cost, asked, vary, variant =
    string.match(field, '^%d+ (%x+) (%d+) (%d+) (%d+) (%d+) (%x*) (.*)$')
  return {number = number, ends = tonumber(ends), chunks = tonumber(chunks), cost = cost,
          asked = asked, vary = vary, variant = variant, field = field}
end
local function chunk(label, n) return KEYS[1] .. ':' .. label.number .. ':' .. n end
"""

KEEP: Final = Script(
    _LABEL,
    LAND,
    """
-- KEYS: the shelf, and under a lease L, A, F, S
-- ARGV: label, value, ends, now, grace, linger, most, channel, news,
--       under a lease id, lease, how long it is news, else whether one was wanted;
--       then pairs of vary, variant
local leased = KEYS[2] ~= nil
if leased and not holds(KEYS[2], ARGV[10]) then return {-2} end
local new = read('0 ' .. ARGV[1])
local clock, grace = tonumber(ARGV[4]), tonumber(ARGV[5])
local known, stays, goes, unknown = {}, {}, {}, {}
for i = leased and 13 or 11, #ARGV, 2 do known[ARGV[i]] = ARGV[i + 1] end
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  local label = read(field)
  if label.ends <= clock then goes[#goes + 1] = label
  elseif known[label.vary] == label.variant then
    if not leased and tonumber(label.asked) > tonumber(new.asked) then return {-2} end
    goes[#goes + 1] = label
  elseif known[label.vary] == nil then unknown[#unknown + 1] = label.vary
  else stays[#stays + 1] = label end
end
if #unknown > 0 then return {0, unpack(unknown)} end
for n = 0, new.chunks - 1 do
  if redis.call('EXISTS', chunk(new, n)) == 0 then return {-1} end
end
redis.call('PUBLISH', ARGV[8], ARGV[9])  -- first: what nobody may be told of is not stored
for n = 0, new.chunks - 1 do redis.call('PEXPIREAT', chunk(new, n), new.ends + grace) end
table.sort(stays, function(a, b) return a.field < b.field end)
for i = 1, #stays + 1 - tonumber(ARGV[7]) do goes[#goes + 1] = stays[i] end
local time, gone = redis.call('TIME'), {1, 0}
for _, label in ipairs(goes) do
  redis.call('HDEL', KEYS[1], label.field)
  for n = 0, label.chunks - 1 do
    local left = redis.call('PTTL', chunk(label, n))
    if left > grace then redis.call('PEXPIRE', chunk(label, n), grace) end
  end
  gone[#gone + 1] = label.number .. ' ' .. label.cost .. ' ' .. label.asked
end
local order = string.format('%016d', time[1] * 1000000 + time[2])
redis.call('HSET', KEYS[1], order .. ' ' .. ARGV[1], ARGV[2])
local left, until_ = redis.call('PTTL', KEYS[1]), new.ends + tonumber(ARGV[6])
if left < 0 or time[1] * 1000 + left < until_ then redis.call('PEXPIREAT', KEYS[1], until_) end
if leased then gone[2] = land(KEYS[2], KEYS[3], KEYS[4], KEYS[5], ARGV[11], ARGV[12])
elseif ARGV[10] == '1' then  -- nobody could be asked when the call began: an older one goes on
  local lease = KEYS[1] .. ':flight'
  local at = redis.call('HGET', lease, 'at')
  if at and at * 1000 < tonumber(new.asked) then redis.call('DEL', lease) end
end
return gone
""",
)
"""An answer onto its shelf, in place of those that would have answered its request: {1, how many
follow, what went}. {0, names}: somebody has to say what the request sent in those too. {-1}: a
chunk is gone. {-2}: the lease is; or, where there was none, a later answer is there."""

REMOVE: Final = Script(
    _LABEL,
    """
local doomed = {}
for _, number in ipairs(ARGV) do doomed[number] = true end
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  local label = read(field)
  if doomed[label.number] then
    redis.call('HDEL', KEYS[1], field)
    for n = 0, label.chunks - 1 do redis.call('UNLINK', chunk(label, n)) end
  end
end
return 1
""",
)
"""Answers off their shelf, by their numbers."""

HOLDS: Final = Script(
    _LABEL,
    """
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if read(field).number == ARGV[1] then return 1 end
end
return 0
""",
)
"""Whether an answer is on its shelf, by its number."""

TOUCH: Final = Script(
    _LABEL,
    """
redis.call('TOUCH', KEYS[1])
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  local label = read(field)
  if label.chunks == 1 then redis.call('TOUCH', chunk(label, 0)) end
end
return 1
""",
)
"""A shelf was used, and what of it fits into memory: Redis is not to take it for unused."""

LINGER: Final = Script(
    """
local least, found = tonumber(ARGV[1]), 0
for n = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  local left = redis.call('PTTL', KEYS[1] .. ':' .. n)
  if left ~= -2 then
    found = found + 1
    if left >= 0 and left < least then redis.call('PEXPIRE', KEYS[1] .. ':' .. n, least) end
  end
end
return found
""",
)
"""Chunks from the first to the last named: they stay for a while yet. How many there are."""

_SUMS: Final = """
local function count(member, sign)
  local cost, service = string.match(member, '^%x+ %x+ (%d+) %d+ (.*)$')
  redis.call('HINCRBY', KEYS[2], 'n:' .. service, sign)
  redis.call('HINCRBY', KEYS[2], 'o:' .. service, sign * cost)
  return tonumber(cost)
end
local function drop(member)
  return redis.call('ZREM', KEYS[1], member) == 1 and count(member, -1) or 0
end
"""

REGISTER: Final = Script(
    _SUMS,
    """
-- ARGV: member, ends in seconds, quota, linger, then members that went
for i = 5, #ARGV do drop(ARGV[i]) end
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[2]) end
if redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1]) == 1 then count(ARGV[1], 1) end
local ends = ARGV[2] * 1000 + ARGV[4]
for i = 1, 2 do
  local left = redis.call('PTTL', KEYS[i])
  if left < 0 or redis.call('TIME')[1] * 1000 + left < ends then
    redis.call('PEXPIREAT', KEYS[i], string.format('%.0f', ends))
  end
end
local total, sums, victims = 0, redis.call('HGETALL', KEYS[2]), {}
for i = 1, #sums, 2 do
  if string.sub(sums[i], 1, 2) == 'o:' then total = total + sums[i + 1] end
end
while total > tonumber(ARGV[3]) and #victims < 100 do
  local first = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
  if not first then break end
  total = total - drop(first)
  victims[#victims + 1] = first
end
return victims
""",
)
"""An answer into its tenant's register; those that have to go, so that the quota holds."""

DROP: Final = Script(_SUMS, "for _, member in ipairs(ARGV) do drop(member) end return 1")
"""Answers out of the register."""

EXPIRE: Final = Script(
    _SUMS,
    """
local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, member in ipairs(over) do drop(member) end
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[2]) end
return #over
""",
)
"""Answers that are over out of the register, a bounded number; how many."""
