-- The revocations that replicas share: a set with a version. One call pushes records, and gives those that have changed
-- since the caller's version.
-- KEYS: a hash of each revocation's record, sorted sets of their versions and of their ends, and a hash about the set.
-- ARGV: the epoch and version that the caller has, how many records it takes, then for each that it pushes its id, its
-- end in Unix seconds, "1" where it was lifted or "0", and its bytes.
-- Returns the set's epoch, the caller's new version, 1 where more follow, and the records.
local records, versions, ends, about = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local time = redis.call('TIME')
local now = tonumber(time[1])
local epoch, version = redis.call('HGET', about, 'epoch'), tonumber(redis.call('HGET', about, 'version') or 0)
local count = tonumber(redis.call('HGET', about, 'count') or 0)

-- A server that has lost a part of the set, or is older than a caller, has lost all of it: under a new epoch every
-- replica gives what it has.
local whole = epoch and redis.call('HLEN', records) == count and redis.call('ZCARD', versions) == count
  and redis.call('ZCARD', ends) == count
if not whole or (epoch == ARGV[1] and tonumber(ARGV[2]) > version) then
  redis.call('DEL', records, versions, ends, about)
  epoch, version, count = time[1] .. '.' .. time[2], 0, 0
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('HDEL', records, id)
  redis.call('ZREM', versions, id)
  redis.call('ZREM', ends, id)
  count = count - 1
end

for position = 4, #ARGV, 4 do
  local id, until_, lifted, record = ARGV[position], ARGV[position + 1], ARGV[position + 2], ARGV[position + 3]
  local held = redis.call('HGET', records, id)
  -- What was lifted stays lifted.
  local news = not held or (lifted == '1' and string.sub(held, 1, 1) == '0')
  if news and tonumber(until_) > now then
    version = version + 1
    redis.call('HSET', records, id, lifted .. record)
    redis.call('ZADD', versions, version, id)
    redis.call('ZADD', ends, until_, id)
    if not held then
      count = count + 1
    end
  end
end
redis.call('HSET', about, 'epoch', epoch, 'version', version, 'count', count)

local from = 0
if epoch == ARGV[1] then
  from = tonumber(ARGV[2])
end
local limit = tonumber(ARGV[3])
local changed = redis.call('ZRANGEBYSCORE', versions, string.format('(%.0f', from), '+inf', 'WITHSCORES', 'LIMIT', 0, limit + 1)
local answer, reached, more = {}, version, 0
for position = 1, #changed, 2 do
  if #answer == limit then
    more = 1
    break
  end
  answer[#answer + 1] = string.sub(redis.call('HGET', records, changed[position]), 2)
  reached = tonumber(changed[position + 1])
end
if more == 0 then
  reached = version
end
return { epoch, reached, more, answer }
