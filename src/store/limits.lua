-- The limits on subject, channel and all requests, charged together or not at all (GCRA, on the server's clock).
-- KEYS: for each limit the key of its debt and the one of its scope's tariffs. ARGV: "take" or "peek", then each limit's
-- interval and capacity, and how long it has been in force where it is asked for. All times are microseconds.
-- A debt: when it will be paid, the interval that says so, and when that was written.
-- Tariffs, oldest first, a line each: since when a limit has been in force, its interval and its capacity. As in
-- `limit::tariffs`, a debt is paid at the rate of the limit that was in force at each time. A replica that isn't
-- reloaded yet decides by its own limit, and the debt is paid at the rate of the newest.
-- Returns 0, or the position of the limit that refuses and the microseconds until one request would pass.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local take = ARGV[1] == 'take'
local NUMBER = '(%d+%.%d+)'
local THREE = NUMBER .. ' ' .. NUMBER .. ' ' .. NUMBER
-- As many as `limit::tariffs` keeps.
local MOST_TARIFFS = 32
-- A debt outlives its payment by a day: a limit that becomes stricter meanwhile makes it last longer.
local KEPT_LONGER = 86400000

local function text(key)
  -- A value that another program left counts as none.
  local held = redis.pcall('GET', key)
  return type(held) == 'string' and held or ''
end

-- The tariffs with this limit among them, if none is newer.
local function tariffs(key, interval, capacity, age)
  local lines, known = {}, {}
  for line in string.gmatch(text(key), '[^\n]+') do
    local since, before, most = string.match(line, '^' .. THREE .. '$')
    if since then
      since = tonumber(since)
      -- Of a clock that was set back only the order is known.
      since = since > now and 0 or since
      lines[#lines + 1] = line
      known[#known + 1] = {since = since, interval = tonumber(before), capacity = tonumber(most)}
    end
  end
  local newest, since = lines[#lines], now - age
  local limit = ' ' .. interval .. ' ' .. capacity
  local is_known = newest and string.sub(newest, -#limit) == limit
  if not is_known and (not newest or since > known[#known].since) then
    lines[#lines + 1] = string.format('%.3f', since) .. limit
    known[#known + 1] = {since = since, interval = tonumber(interval), capacity = tonumber(capacity)}
    if take then
      redis.call('SET', key, table.concat(lines, '\n', math.max(1, #lines - MOST_TARIFFS + 1)))
    end
  end
  return known
end

-- What is owed now under the newest tariff, and whether what is written says something else.
local function debt(key, known)
  local newest = known[#known]
  local arrival, interval, at = string.match(text(key), '^' .. THREE .. '$')
  if not arrival then
    return 0, false
  end
  arrival, interval, at = tonumber(arrival), tonumber(interval), math.min(tonumber(at), now)
  local changed = at < newest.since or interval ~= newest.interval
  for _, tariff in ipairs(known) do
    local from = math.max(tariff.since, at)
    if arrival > from then
      arrival = from + (arrival - from) * tariff.interval / interval
    end
    interval = tariff.interval
  end
  if at < newest.since then
    -- A narrower capacity cuts the debt, counted from the change on.
    arrival = math.min(arrival, newest.since + newest.capacity)
  end
  local owed = math.max(arrival - now, 0)
  if owed > newest.capacity then
    -- The clock was set back: no key owes more than the whole capacity.
    return newest.capacity, true
  end
  return owed, changed
end

local function store(key, owed, interval)
  -- Lua's own way to write a number cuts microseconds.
  local value = string.format('%.3f %.3f %.3f', now + owed, interval, now)
  redis.call('SET', key, value, 'PX', string.format('%.0f', math.ceil(owed / 1000) + KEPT_LONGER))
end

local owing = {}
for position = 1, #KEYS / 2 do
  local key = KEYS[position * 2 - 1]
  local interval, capacity = tonumber(ARGV[position * 3 - 1]), tonumber(ARGV[position * 3])
  local known = tariffs(
    KEYS[position * 2], ARGV[position * 3 - 1], ARGV[position * 3], tonumber(ARGV[position * 3 + 1])
  )
  local newest = known[#known].interval
  local owed, changed = debt(key, known)
  if changed and take and owed > 0 then
    -- The debt lasts longer than its key, perhaps, whether the request passes or not.
    store(key, owed, newest)
  end
  -- How many requests are owed counts, each at this replica's interval.
  local excess = (owed + newest) * (interval / newest) - capacity
  if excess > 0 then
    return {position, math.ceil(excess * (newest / interval))}
  end
  owing[position] = {key, owed + newest, newest}
end
if take then
  for _, charged in ipairs(owing) do
    store(unpack(charged))
  end
end
return 0
