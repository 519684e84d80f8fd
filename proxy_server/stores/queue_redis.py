"""Queues in Redis or Valkey, for more than one proxy: each queue is a stream with a consumer group.

The keys of a queue `jobs`, with the prefix of the store:

    jobs:ready      a stream of the messages, which the group "consumers" reads. Whoever reads one has it pending
                    there, and the group counts its deliveries
    jobs:leases     a sorted set of the pending ones, by the time at which they may be delivered again
    jobs:delayed    a stream of those that are not due yet
    jobs:due        a sorted set of them, by the time at which they are moved to `ready`
    jobs:bytes      the size of all bodies
    jobs:sent:ID    that the messages from this one on were sent, for a minute

Each operation is one script, which Redis runs by itself: it happens whole or not at all, and no two at a time. The
scripts take the time from here, as all stores do.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any, Final

from anyio.abc import TaskGroup

from proxy_server.stores.queue import Clock, Delivered, Metrics, NewMessage, QueueRules, Retry, Settled, wall_clock
from proxy_server.stores.redis import RedisConnection

__all__ = ["PREFIX", "RedisQueue"]

# What all keys of queues begin with.
PREFIX: Final = "capnweb:queue:"

# What `pull` gives as a lease: the entry in `ready`, and the number of its delivery.
_LEASE: Final = re.compile(r"([0-9]{1,20}-[0-9]{1,20})\.([0-9]{1,9})", re.ASCII)

# KEYS: the prefix of the queue's keys, and that of its dead-letter queue, or "". ARGV[1]: now.
_COMMON: Final = """
local ready, leases, delayed, due, bytes =
    KEYS[1] .. ':ready', KEYS[1] .. ':leases', KEYS[1] .. ':delayed', KEYS[1] .. ':due', KEYS[1] .. ':bytes'
local now = tonumber(ARGV[1])

local function group(stream)
    redis.pcall('XGROUP', 'CREATE', stream, 'consumers', '0', 'MKSTREAM')
end

local function fields(entry)
    local found = {}
    for i = 1, #entry[2], 2 do found[entry[2][i]] = entry[2][i + 1] end
    return found
end

local function remove(entry)
    redis.call('XACK', ready, 'consumers', entry[1])
    redis.call('XDEL', ready, entry[1])
    redis.call('ZREM', leases, entry[1])
    redis.call('DECRBY', bytes, #fields(entry).body)
end

local function bury(entry)
    remove(entry)
    if KEYS[2] ~= '' then
        local message = fields(entry)
        group(KEYS[2] .. ':ready')
        redis.call('XADD', KEYS[2] .. ':ready', '*', 'id', message.id, 'sent', message.sent, 'stored', now,
            'type', message.type, 'body', message.body)
        redis.call('INCRBY', KEYS[2] .. ':bytes', #message.body)
    end
end

local function deliveries(entry_id)
    local pending = redis.call('XPENDING', ready, 'consumers', entry_id, entry_id, 1)
    return pending[1] and pending[1][4] or 0
end

local function measured()
    local oldest = 0
    for _, stream in ipairs({ready, delayed}) do
        local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
        if first then
            local sent = tonumber(fields(first).sent)
            if oldest == 0 or sent < oldest then oldest = sent end
        end
    end
    return {redis.call('XLEN', ready) + redis.call('XLEN', delayed), tonumber(redis.call('GET', bytes) or '0'), oldest}
end
"""

# ARGV[2...]: id, type, body and delay of each message. The client repeats a script when its connection breaks before
# the answer: what was sent by then is not sent again.
_SEND: Final = """
if not redis.call('SET', KEYS[1] .. ':sent:' .. ARGV[2], 1, 'NX', 'EX', 60) then return measured() end
for i = 2, #ARGV, 4 do
    local id, kind, body, later = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
    local stream = later > 0 and delayed or ready
    local entry = redis.call('XADD', stream, '*', 'id', id, 'sent', now, 'stored', now, 'type', kind, 'body', body)
    if later > 0 then redis.call('ZADD', due, now + later * 1000, entry) end
    redis.call('INCRBY', bytes, #body)
end
return measured()
"""

# ARGV[2...]: the limit, the visibility time-out, max_retries, and the time before which messages are too old.
_PULL: Final = """
local limit, visible = tonumber(ARGV[2]), now + tonumber(ARGV[3])
local retries, too_old = tonumber(ARGV[4]), tonumber(ARGV[5])
group(ready)

while true do
    local first = redis.call('XRANGE', ready, '-', '+', 'COUNT', 1)[1]
    if not first or tonumber(fields(first).stored) > too_old then break end
    remove(first)
end

for _, entry_id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, 1000)) do
    local entry = redis.call('XRANGE', delayed, entry_id, entry_id)[1]
    redis.call('ZREM', due, entry_id)
    redis.call('XDEL', delayed, entry_id)
    if tonumber(fields(entry).stored) > too_old then
        redis.call('XADD', ready, '*', unpack(entry[2]))
    else
        redis.call('DECRBY', bytes, #fields(entry).body)
    end
end

local answer = {}
local function lease(entry)
    redis.call('ZADD', leases, visible, entry[1])
    local message = fields(entry)
    answer[#answer + 1] = {entry[1], message.id, message.sent, deliveries(entry[1]), message.body, message.type}
end

while #answer < limit do
    local entry_id = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 1)[1]
    if not entry_id then break end
    if deliveries(entry_id) > retries then
        bury(redis.call('XRANGE', ready, entry_id, entry_id)[1])
    else
        local claimed = redis.call('XCLAIM', ready, 'consumers', 'proxy', 0, entry_id)[1]
        if claimed then lease(claimed) else redis.call('ZREM', leases, entry_id) end
    end
end

if #answer < limit then
    local read = redis.call(
        'XREADGROUP', 'GROUP', 'consumers', 'proxy', 'COUNT', limit - #answer, 'STREAMS', ready, '>')
    for _, entry in ipairs(read and read[1][2] or {}) do lease(entry) end
end
return answer
"""

# ARGV[2...]: max_retries; how many acks; their entries; and entry, deliveries and delay of each retry.
_SETTLE: Final = """
local retries, acks = tonumber(ARGV[2]), tonumber(ARGV[3])
group(ready)
local answer = {}

local function found(entry_id)
    return redis.call('XRANGE', ready, entry_id, entry_id)[1]
end

for i = 4, 3 + acks do
    local entry = found(ARGV[i])
    if entry then remove(entry) end
    answer[#answer + 1] = entry and 1 or 0
end
for i = 4 + acks, #ARGV, 3 do
    local entry, count = found(ARGV[i]), tonumber(ARGV[i + 1])
    local current = entry and count == deliveries(ARGV[i])
    if current and count > retries then
        bury(entry)
    elseif current then
        redis.call('ZADD', leases, now + tonumber(ARGV[i + 2]) * 1000, ARGV[i])
    end
    answer[#answer + 1] = current and 1 or 0
end
return answer
"""

_METRICS: Final = "return measured()"


class RedisQueue:
    """One queue of a Redis database. Made by `open`."""

    def __init__(self, connection: RedisConnection, rules: QueueRules, clock: Clock) -> None:
        self._connection = connection
        self._rules = rules
        self._clock = clock
        self._keys = [PREFIX + rules.name, PREFIX + rules.dead_letter_queue if rules.dead_letter_queue else ""]
        self._send, self._pull, self._settle, self._metrics = (
            connection.client.register_script(_COMMON + script) for script in (_SEND, _PULL, _SETTLE, _METRICS)
        )

    @classmethod
    async def open(cls, url: str, rules: QueueRules, tasks: TaskGroup, clock: Clock = wall_clock) -> RedisQueue:
        """Open a queue of a database.

        Args:
            url: of the Redis.
            rules: of the queue.
            tasks: where the client runs until `aclose`.
            clock: tells the time.

        Raises:
            ConnectionError: if it does not answer.
        """
        return cls(await RedisConnection.open(url, tasks), rules, clock)

    async def send(self, messages: Sequence[NewMessage]) -> Metrics:
        values: list[Any] = []
        for message in messages:
            values += [secrets.token_hex(16), message.content_type, message.body, message.delay]
        return Metrics(*await self._send(self._keys, [self._clock(), *values]))

    async def pull(self, limit: int, visibility: int) -> list[Delivered]:
        now = self._clock()
        too_old = now - self._rules.retention * 1000
        rows: list[Any] = await self._pull(self._keys, [now, limit, visibility, self._rules.max_retries, too_old])
        return [
            Delivered(name.decode(), f"{entry.decode()}.{attempts}", int(sent), attempts, body, content_type.decode())
            for entry, name, sent, attempts, body, content_type in rows
        ]

    async def settle(self, acks: Sequence[str], retries: Sequence[Retry]) -> Settled:
        values: list[Any] = [self._rules.max_retries, len(acks), *(_parts(lease)[0] for lease in acks)]
        for retry in retries:
            values += [*_parts(retry.lease), retry.delay]
        done: list[int] = await self._settle(self._keys, [self._clock(), *values])
        asked = [*acks, *(retry.lease for retry in retries)]
        unknown = tuple(lease for lease, is_done in zip(asked, done, strict=True) if not is_done)
        return Settled(sum(done[: len(acks)]), sum(done[len(acks) :]), unknown)

    async def metrics(self) -> Metrics:
        return Metrics(*await self._metrics(self._keys, [self._clock()]))

    async def aclose(self) -> None:
        await self._connection.aclose()


def _parts(lease: str) -> tuple[str, str]:
    """The entry of a lease, and how often it had been delivered. Of what is no lease: an entry that nobody has."""
    match = _LEASE.fullmatch(lease)
    return (match[1], match[2]) if match else ("0-0", "0")
