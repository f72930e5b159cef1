-- The records of sessions and refused logins that replicas share: a set with a version. One call pushes entries, and
-- gives those that have changed since the caller's version. What an entry says is for the replicas to read: one that
-- the caller hasn't seen is never replaced, but given to the caller, who pushes what follows from both.
-- KEYS: a hash of the entries, sorted sets of their versions and of their ends, a hash about the set, and the key of
-- the logins' hashes.
-- ARGV: the epoch and version that the caller has, how many entries it takes, then for each that it pushes its name,
-- its end in Unix seconds, the version that the caller has seen of it, 0 for none, and its bytes.
-- Returns nothing where there is no key of the logins' hashes: it must be agreed on first. Otherwise the set's epoch,
-- the caller's new version, 1 where more follow, the entries, and for each pushed one that wasn't taken its position,
-- and the version and bytes of the one that is there.
local entries, versions, ends, about = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local time = redis.call('TIME')
local now = tonumber(time[1])
-- Entries stay a little longer than what they say: a token may be renewed late, and clocks differ.
local KEPT = 300
-- The set itself lasts longer than any entry that is being renewed.
local ALL = 3456000

if redis.call('EXISTS', KEYS[5]) == 0 then
  return false
end
local epoch, version, count = unpack(redis.call('HMGET', about, 'epoch', 'version', 'count'))
version, count = tonumber(version or 0), tonumber(count or 0)

-- As with revocations: what has lost a part, or is older than a caller, has lost all of it.
local whole = epoch and redis.call('HLEN', entries) == count and redis.call('ZCARD', versions) == count
  and redis.call('ZCARD', ends) == count
if not whole or (epoch == ARGV[1] and tonumber(ARGV[2]) > version) then
  redis.call('DEL', entries, versions, ends, about)
  epoch, version, count = time[1] .. '.' .. time[2], 0, 0
end

local over = redis.call('ZRANGEBYSCORE', ends, '-inf', now - KEPT, 'LIMIT', 0, 200)
if #over > 0 then
  redis.call('HDEL', entries, unpack(over))
  redis.call('ZREM', versions, unpack(over))
  redis.call('ZREM', ends, unpack(over))
  count = count - #over
end

local own, others = {}, {}
for position = 4, #ARGV, 4 do
  local name, until_, seen, bytes = ARGV[position], ARGV[position + 1], tonumber(ARGV[position + 2]), ARGV[position + 3]
  local held = redis.call('HGET', entries, name)
  local since = held and held ~= bytes and tonumber(redis.call('ZSCORE', versions, name)) or seen
  if held == bytes then
    own[name] = true
  elseif held and since ~= seen then
    others[#others + 1] = (position - 4) / 4
    others[#others + 1] = since
    others[#others + 1] = held
  elseif tonumber(until_) > now - KEPT then
    own[name] = true
    version = version + 1
    redis.call('HSET', entries, name, bytes)
    redis.call('ZADD', versions, version, name)
    redis.call('ZADD', ends, until_, name)
    if not held then
      count = count + 1
    end
  end
end
redis.call('HSET', about, 'epoch', epoch, 'version', version, 'count', count)
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, ALL)
end

local from = 0
if epoch == ARGV[1] then
  from = tonumber(ARGV[2])
end
local limit = tonumber(ARGV[3])
local changed = redis.call('ZRANGEBYSCORE', versions, string.format('(%.0f', from), '+inf', 'WITHSCORES', 'LIMIT', 0, limit + 1)
local answer, reached, more = {}, version, 0
for position = 1, #changed, 2 do
  if position > limit * 2 then
    more = 1
    break
  end
  if not own[changed[position]] then
    answer[#answer + 1] = redis.call('HGET', entries, changed[position])
  end
  reached = tonumber(changed[position + 1])
end
if more == 0 then
  reached = version
end
return { epoch, reached, more, answer, others }
