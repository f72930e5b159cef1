-- The revocations that replicas share. One call pushes records, and gives those that have changed since the caller's
-- version.
-- ARGV from 5 on: for each record that is pushed its id, its end in Unix seconds, "1" where it was lifted or "0", and
-- its bytes. An entry is the "1" or "0" with the bytes behind it.
-- Returns the set's epoch, the caller's new version, 1 where more follow, and the records.
begin(now)
for position = 5, #ARGV, 4 do
  local id, until_, lifted, record = ARGV[position], ARGV[position + 1], ARGV[position + 2], ARGV[position + 3]
  local held = redis.call('HGET', entries, id)
  -- What was lifted stays lifted.
  local news = not held or (lifted == '1' and string.sub(held, 1, 1) == '0')
  if news and tonumber(until_) > now then
    put(id, until_, lifted .. record, held)
  end
end
local epoch, reached, more, answer = changes({})
for position, entry in ipairs(answer) do
  answer[position] = string.sub(entry, 2)
end
return { epoch, reached, more, answer }
