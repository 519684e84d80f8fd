"""The scripts of kv_redis.py, in Lua.

KEYS    names, expirations, entries, values
ARGV    the prefix of blobs, how long loose blobs live, now; then what the script is about
"""

from __future__ import annotations

from typing import Final

__all__ = ["DELETE", "GET", "LIST", "PUT", "WRITE"]

_PARTS: Final = """
local names, expirations, entries, values = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local blobs, loose, now = ARGV[1], ARGV[2], tonumber(ARGV[3])

local function parts(entry)
    return string.match(entry, '^(%d*)|(%x*)|')
end

local function expired(entry)
    local expiration = parts(entry)
    return expiration ~= '' and tonumber(expiration) <= now
end

-- Let the blob of an entry go, unless it is the one that stays.
local function release(entry, kept)
    if entry then
        local _, blob = parts(entry)
        if blob ~= '' and blob ~= kept then
            redis.call('EXPIRE', blobs .. blob, loose)
        end
    end
end

local function remove(key)
    release(redis.call('HGET', entries, key), '')
    redis.call('ZREM', names, key)
    redis.call('ZREM', expirations, key)
    redis.call('HDEL', entries, key)
    redis.call('HDEL', values, key)
end
"""

# About a key. Returns its entry, and its value or the size of its blob; nothing if it is not there.
GET: Final = (
    _PARTS
    + """
local entry = redis.call('HGET', entries, ARGV[4])
if not entry or expired(entry) then
    return false
end
local _, blob = parts(entry)
if blob == '' then
    return {entry, redis.call('HGET', values, ARGV[4])}
end
return {entry, redis.call('STRLEN', blobs .. blob)}
"""
)

# About a blob, an offset and the bytes there. Returns nothing if what was before them is not there any more.
WRITE: Final = (
    _PARTS
    + """
local blob, offset = blobs .. ARGV[4], tonumber(ARGV[5])
if redis.call('STRLEN', blob) < offset then
    return false
end
redis.call('SETRANGE', blob, offset, ARGV[6])
redis.call('EXPIRE', blob, loose)
return 1
"""
)

# About a key, its expiration, blob, metadata and value, each of which may be empty. Some of what has expired goes, too.
# What a Redis without memory refuses comes first: where it does, nothing has changed. Returns nothing if the blob
# is not there any more.
PUT: Final = (
    _PARTS
    + """
local key, expiration, blob, metadata, value = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
if blob ~= '' and redis.call('EXISTS', blobs .. blob) == 0 then
    return false
end
local old = redis.call('HGET', entries, key)
redis.call('HSET', entries, key, expiration .. '|' .. blob .. '|' .. metadata)
release(old, blob)
if blob == '' then
    redis.call('HSET', values, key, value)
else
    redis.call('PERSIST', blobs .. blob)
    redis.call('HDEL', values, key)
end
redis.call('ZADD', names, 0, key)
if expiration == '' then
    redis.call('ZREM', expirations, key)
else
    redis.call('ZADD', expirations, expiration, key)
end
for _, expired in ipairs(redis.call('ZRANGEBYSCORE', expirations, '-inf', now, 'LIMIT', 0, 100)) do
    remove(expired)
end
return 1
"""
)

# About a key.
DELETE: Final = (
    _PARTS
    + """
remove(ARGV[4])
return 1
"""
)

# About the range in which keys are, and how many. Returns keys, each followed by its entry.
LIST: Final = (
    _PARTS
    + """
local low, high, limit = ARGV[4], ARGV[5], tonumber(ARGV[6])
local found = {}
while #found < 2 * limit do
    local page = redis.call('ZRANGEBYLEX', names, low, high, 'LIMIT', 0, limit)
    if #page == 0 then
        break
    end
    local kept = redis.call('HMGET', entries, unpack(page))
    for index, key in ipairs(page) do
        if kept[index] and not expired(kept[index]) and #found < 2 * limit then
            found[#found + 1] = key
            found[#found + 1] = kept[index]
        end
    end
    low = '(' .. page[#page]
end
return found
"""
)
