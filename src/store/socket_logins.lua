-- The logins of one session of engine.io, each sealed under the field of its namespace: the last one to be put stays.
-- KEYS 1: the session. ARGV: 1 where the session may begin here, the milliseconds for which it is kept from now on, the
-- most fields and the most bytes that it may have, and then each field that is put and its value.
-- Returns nothing where the session isn't there and may not begin, or else its fields and their values. A value for which
-- there is no room takes its field with it: one that was replaced must not count any more.
local key = KEYS[1]
local most, room = tonumber(ARGV[3]), tonumber(ARGV[4])
local all = redis.call('HGETALL', key)
if #all == 0 and ARGV[1] ~= '1' then
  return false
end
local held, count = {}, 0
local function put(field, value)
  count = count + 1
  room = room - #field - #value
  held[field] = value
end
for position = 1, #all, 2 do
  put(all[position], all[position + 1])
end
for position = 5, #ARGV, 2 do
  local field, value = ARGV[position], ARGV[position + 1]
  if held[field] then
    count = count - 1
    room = room + #field + #held[field]
    held[field] = nil
  end
  if count < most and #field + #value <= room then
    put(field, value)
    redis.call('HSET', key, field, value)
  else
    redis.call('HDEL', key, field)
  end
end
redis.call('PEXPIRE', key, ARGV[2])
local answer = {}
for field, value in pairs(held) do
  answer[#answer + 1] = field
  answer[#answer + 1] = value
end
return answer
