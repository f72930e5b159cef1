-- The claims of one grant, made together or not at all: a user of a channel, and a channel among those of a publisher.
-- KEYS: the user's holder, and the sorted set of the subject's channels by when their claims end.
-- ARGV: the subject; how long the claims last, in milliseconds, or 0, alone, to give the user up; "1" for a publisher
-- or "0"; "1" where the user is claimed or "0"; the most channels of a publisher, 0 where they aren't limited; the
-- channel; then those of the subject's channels whose streams are over.
-- Returns 0; 1 where another subject holds the user; or 2 and the subject's other channels where there are too many.
local holder, channels = KEYS[1], KEYS[2]
local subject, lasts, publishes, binds = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4] == '1'
local most, channel = tonumber(ARGV[5]), ARGV[6]
-- No token lives longer. A claim that lasts longer is from before the clock was set back, and counts no more.
local LONGEST = 172800000

if lasts == 0 then
  if redis.pcall('GET', holder) == subject then
    redis.call('DEL', holder)
  end
  return 0
end

local function whole(number)
  -- Lua's own way to write a number cuts milliseconds.
  return string.format('%.0f', number)
end

local held, left = false, 0
if binds then
  -- A value that another program left counts as none.
  held = redis.pcall('GET', holder)
  left = held and redis.call('PTTL', holder) or 0
  if left > LONGEST then
    left = 0
  end
  if type(held) == 'string' and held ~= subject and left ~= 0 and not publishes then
    return 1
  end
end

if most > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local over = redis.pcall('ZREMRANGEBYSCORE', channels, '-inf', whole(now))
  if type(over) == 'table' then
    redis.call('DEL', channels)
  end
  redis.call('ZREMRANGEBYSCORE', channels, '(' .. whole(now + LONGEST), '+inf')
  for position = 7, #ARGV do
    redis.call('ZREM', channels, ARGV[position])
  end
  local own = tonumber(redis.call('ZSCORE', channels, channel) or 0)
  local others = redis.call('ZCARD', channels) - (own > 0 and 1 or 0)
  if others >= most then
    local named = redis.call('ZRANGE', channels, 0, 31)
    table.insert(named, 1, 2)
    return named
  end
  redis.call('ZADD', channels, whole(math.max(own, now + lasts)), channel)
  local last = redis.call('ZRANGE', channels, -1, -1, 'WITHSCORES')[2]
  redis.call('PEXPIRE', channels, whole(math.max(tonumber(last) - now, 1)))
end
if binds then
  local longest = held == subject and math.max(left, lasts) or lasts
  redis.call('SET', holder, subject, 'PX', whole(longest))
end
return 0
