-- The records of sessions and refused logins that replicas share. One call pushes entries, and gives those that have
-- changed since the caller's version. What an entry says is for the replicas to read: one that the caller hasn't seen
-- is never replaced, but given to the caller, who pushes what follows from both.
-- KEYS 5: the key of the logins' hashes.
-- ARGV from 5 on: for each entry that is pushed its name, its end in Unix seconds, the version that the caller has seen
-- of it, 0 for none, and its bytes.
-- Returns nothing where there is no key of the logins' hashes: it must be agreed on first. Otherwise the set's epoch,
-- the caller's new version, 1 where more follow, the entries, and for each pushed one that wasn't taken its position,
-- and the version and bytes of the one that is there.

-- Entries stay a little longer than what they say: a token may be renewed late, and clocks differ.
local KEPT = 300
-- The set itself lasts longer than any entry that is being renewed.
local ALL = 3456000

if redis.call('EXISTS', KEYS[5]) == 0 then
  return false
end
begin(now - KEPT)
local own, others = {}, {}
for position = 5, #ARGV, 4 do
  local name, until_, seen, bytes = ARGV[position], ARGV[position + 1], tonumber(ARGV[position + 2]), ARGV[position + 3]
  local held = redis.call('HGET', entries, name)
  local since = held and held ~= bytes and tonumber(redis.call('ZSCORE', versions, name)) or seen
  if held == bytes then
    own[name] = true
  elseif held and since ~= seen then
    others[#others + 1] = (position - 5) / 4
    others[#others + 1] = since
    others[#others + 1] = held
  elseif tonumber(until_) > now - KEPT then
    own[name] = true
    put(name, until_, bytes, held)
  end
end
local epoch, reached, more, answer = changes(own)
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, ALL)
end
return { epoch, reached, more, answer, others }
