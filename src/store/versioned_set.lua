-- A set with a version, in which each replica sees the changes of the others. The scripts that follow in the same text
-- use it: `begin`, then `put` for each entry, then `changes`.
-- KEYS 1 to 4: a hash of the entries, sorted sets of their versions and of their ends, and a hash about the set.
-- ARGV 1 to 4: the epoch and version that the caller has, how many entries it takes, and its name; nothing where it
-- reads nothing. The hash about the set remembers how far each name has read.
local entries, versions, ends, about = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local time = redis.call('TIME')
local now = tonumber(time[1])
local epoch, version, count, known
local reader = ARGV[4] ~= '' and 'read:' .. ARGV[4]
-- Each start of a replica leaves a name. A set with more of them is given anew.
local MOST_READERS = 1000

-- Forgets what ended by this second. A server that has lost a part of the set, or is older than a caller, has lost all
-- of it: under a new epoch every replica gives what it has. The version alone doesn't show that it is older: what other
-- callers have given since may have brought it up again.
local function begin(ended)
  epoch, version, count = unpack(redis.call('HMGET', about, 'epoch', 'version', 'count'))
  version, count = tonumber(version or 0), tonumber(count or 0)
  local whole = epoch and redis.call('HLEN', entries) == count and redis.call('ZCARD', versions) == count
    and redis.call('ZCARD', ends) == count
  known = reader and tonumber(redis.call('HGET', about, reader) or 0) or version
  local older = epoch == ARGV[1] and tonumber(ARGV[2]) > math.min(version, known)
  if not whole or older or redis.call('HLEN', about) > MOST_READERS then
    redis.call('DEL', entries, versions, ends, about)
    epoch, version, count, known = time[1] .. '.' .. time[2], 0, 0, 0
  end
  local over = redis.call('ZRANGEBYSCORE', ends, '-inf', ended, 'LIMIT', 0, 200)
  if #over > 0 then
    redis.call('HDEL', entries, unpack(over))
    redis.call('ZREM', versions, unpack(over))
    redis.call('ZREM', ends, unpack(over))
    count = count - #over
  end
end

-- Puts an entry in the place of the one that is held, if any.
local function put(name, until_, bytes, held)
  version = version + 1
  redis.call('HSET', entries, name, bytes)
  redis.call('ZADD', versions, version, name)
  redis.call('ZADD', ends, until_, name)
  if not held then
    count = count + 1
  end
end

-- Gives the epoch, the caller's new version, 1 where more follow, and the entries that have changed since the caller's
-- version, but for those named in `own`.
local function changes(own)
  redis.call('HSET', about, 'epoch', epoch, 'version', version, 'count', count)
  local from = 0
  if epoch == ARGV[1] then
    from = tonumber(ARGV[2])
  end
  local limit = tonumber(ARGV[3])
  local changed = redis.call(
    'ZRANGEBYSCORE', versions, string.format('(%.0f', from), '+inf', 'WITHSCORES', 'LIMIT', 0, limit + 1
  )
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
  if reader then
    redis.call('HSET', about, reader, math.max(reached, known))
  end
  return epoch, reached, more, answer
end

