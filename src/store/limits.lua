-- The limits on subject, channel and all requests, charged together or not at all (GCRA, on the server's clock).
-- KEYS: one for each limit. ARGV: "take" or "peek", then each limit's interval and capacity in microseconds.
-- A key holds when its debt will be paid, and the interval under which that was charged. A debt is a number of requests:
-- under another limit each of them costs the new interval.
-- Returns 0, or the position of the limit that refuses and the microseconds until one request would pass.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local take = ARGV[1] == 'take'

local function store(key, owed, interval)
  -- Lua's own way to write a number cuts microseconds.
  local value = string.format('%.3f %.3f', now + owed, interval)
  redis.call('SET', key, value, 'PX', string.format('%.0f', math.max(1, math.ceil(owed / 1000))))
end

local owing = {}
for position, key in ipairs(KEYS) do
  local interval, capacity = tonumber(ARGV[position * 2]), tonumber(ARGV[position * 2 + 1])
  local owed, changed = 0, false
  -- What isn't ours counts as nothing.
  local held = redis.pcall('GET', key)
  if type(held) == 'string' then
    local arrival, charged = string.match(held, '^([%d.]+) ([%d.]+)$')
    arrival, charged = tonumber(arrival), tonumber(charged)
    if arrival and charged and charged > 0 and arrival > now then
      owed = (arrival - now) * interval / charged
      -- Intervals are written with three decimals.
      changed = math.abs(charged - interval) > 0.0005
    end
  end
  if owed > capacity then
    -- The limit has become narrower, or the clock was set back: no key owes more than the whole capacity.
    owed, changed = capacity, true
  end
  if changed and take then
    -- From now on the debt is paid at the rate of this limit, whether the request passes or not.
    store(key, owed, interval)
  end
  owing[position] = owed + interval
  if owing[position] > capacity then
    return {position, math.ceil(owing[position] - capacity)}
  end
end
if take then
  for position, key in ipairs(KEYS) do
    store(key, owing[position], tonumber(ARGV[position * 2]))
  end
end
return 0
