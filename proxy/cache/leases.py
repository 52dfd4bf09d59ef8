"""What Redis does in one step with the leases of flights; each script in one slot of a cluster.

A key of the cache that somebody flies has the name `L`: a hash with who leads (`id`), since when
(`at`), and whether its answer is stored already (`landed`). Every leader has, under its id, `F`: a
hash with the channel where it hears of followers, how many records it has said, and whether it is
over; `S`: a stream of its records; `A`: a sorted set of its followers, each with its channel, by
the time of their last sign. They are in the slot of the key's shelf: the script that puts an answer
there looks at `L` (`scripts.KEEP`).
"""

from __future__ import annotations

from typing import Final

from proxy.engine import Script

TIME: Final = """
local function now() local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) end
"""

BOARD: Final = Script(
    """
-- KEYS: L, own F; ARGV: id, at, after, joins, besides, lease, channel
local id, at, landed = unpack(redis.call('HMGET', KEYS[1], 'id', 'at', 'landed'))
if id and id ~= ARGV[1] and ARGV[4] == '1' and id ~= ARGV[5]
   and tonumber(at) > tonumber(ARGV[3]) then
  return {landed and 2 or 1, id}
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'at', ARGV[2])
redis.call('HSET', KEYS[2], 'channel', ARGV[7], 'said', 0, 'octets', 0)
for i = 1, 2 do redis.call('PEXPIRE', KEYS[i], ARGV[6]) end
return {0, ARGV[1]}
"""
)
"""Who leads: {0: you; 1: another, whom you follow; 2: one whose answer is stored, its id}."""

JOIN: Final = Script(
    TIME,
    """
-- KEYS: F, A; ARGV: id, follower, lease
local channel = redis.call('HGET', KEYS[1], 'channel')
if not channel then return 0 end
redis.call('ZADD', KEYS[2], now(), ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('PUBLISH', channel, ARGV[1])
return 1
""",
)
"""One follower more, unless the leader is gone."""

_TELL: Final = """
local function tell(id)
  for _, follower in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    redis.call('PUBLISH', string.match(follower, ' (.*)$'), id)
  end
end
"""

SAY: Final = Script(
    TIME,
    _TELL,
    """
-- KEYS: A, F, S; ARGV: id, number, record, room, lease
local said = tonumber(redis.call('HGET', KEYS[2], 'said'))
if not said then return -1 end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now() - ARGV[5])
local followers = redis.call('ZCARD', KEYS[1])
if followers == 0 then return tonumber(ARGV[2]) == said and 1 or 0 end
if tonumber(ARGV[2]) == said + 1 then
  redis.call('XADD', KEYS[3], ARGV[2] .. '-0', 'r', ARGV[3])
  redis.call('HSET', KEYS[2], 'said', ARGV[2])
  local octets = redis.call('HINCRBY', KEYS[2], 'octets', #ARGV[3])
  while octets > tonumber(ARGV[4]) do
    local first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
    octets = redis.call('HINCRBY', KEYS[2], 'octets', -#first[2][2])
    redis.call('XDEL', KEYS[3], first[1])
  end
end
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[5]) end
tell(ARGV[1])
return followers
""",
)
"""The next record, where anybody follows: how many do; -1: the lease is over. One that was taken
already counts as followed: it is not to be said again in another form."""

HEAR: Final = Script(
    """
-- KEYS: F, S; ARGV: the last number heard, how many
local over = redis.call('HGET', KEYS[1], 'over')
local gone = redis.call('EXISTS', KEYS[1]) == 0
local found = redis.call('XRANGE', KEYS[2], '(' .. ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])
local told = {(gone or over) and 1 or 0}
for _, one in ipairs(found) do
  told[#told + 1] = string.match(one[1], '^%d+')
  told[#told + 1] = one[2][2]
end
return told
"""
)
"""What was said since: {whether that is all, then number and record of each}."""

HOLDS: Final = """
local function holds(L, id) return redis.call('HGET', L, 'id') == id end
"""
"""Whether a leader is the one that others join: an id that was replaced never comes back."""

CLEAR: Final = (
    TIME
    + """
local function clear(A, F, S, lease)
  redis.call('ZREMRANGEBYSCORE', A, '-inf', now() - lease)
  local followers = redis.call('ZCARD', A)
  if followers == 0 then redis.call('DEL', A, F, S) end
  return followers
end
"""
)
"""Without followers nothing is left of a leader. How many it has."""

CLOSE: Final = Script(
    HOLDS,
    CLEAR,
    """
-- KEYS: L, A, F, S; ARGV: id, lease
if holds(KEYS[1], ARGV[1]) then redis.call('DEL', KEYS[1]) end
return clear(KEYS[2], KEYS[3], KEYS[4], ARGV[2])
""",
)
"""Nobody joins this leader, whose answer is not stored, any more. How many followers it has."""

LAND: Final = (
    HOLDS
    + CLEAR
    + """
local function land(L, A, F, S, lease, news)
  redis.call('HSET', L, 'landed', 1)
  redis.call('PEXPIRE', L, news)
  return clear(A, F, S, lease)
end
"""
)
"""The same for one whose answer has just been stored: who asks for a while is told so."""

END: Final = Script(
    _TELL,
    """
-- KEYS: A, F, S; ARGV: id, linger
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('HSET', KEYS[2], 'over', 1) end
tell(ARGV[1])
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
return 1
""",
)
"""All was said; it stays for those who are behind."""

LEAVE: Final = Script("return redis.call('ZREM', KEYS[1], ARGV[1])")
"""One follower fewer."""

LIVE: Final = (
    HOLDS
    + """
-- KEYS: A, F, S, L; ARGV: id, lease
if redis.call('EXISTS', KEYS[2]) == 0 then return -1 end
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
if holds(KEYS[4], ARGV[1]) and redis.call('HEXISTS', KEYS[4], 'landed') == 0
then redis.call('PEXPIRE', KEYS[4], ARGV[2]) end
return redis.call('ZCARD', KEYS[1])
"""
)
"""A sign of life of a leader: how many follow; -1: its lease is over."""

LISTEN: Final = (
    TIME
    + """
-- KEYS: A, F; ARGV: follower, the last number heard, lease
local said, over = unpack(redis.call('HMGET', KEYS[2], 'said', 'over'))
if not said then return 1 end
redis.call('ZADD', KEYS[1], now(), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return (over or tonumber(said) > tonumber(ARGV[2])) and 1 or 0
"""
)
"""A sign of life of a follower: whether there is something to hear."""
