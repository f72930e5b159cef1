-- The key of the logins' hashes, on which replicas agree: the first one's.
-- KEYS: the key's place. ARGV: the caller's key, or nothing where the caller waits for another's.
-- Returns the key that is there now, or nothing.
local held = redis.call('GET', KEYS[1])
if not held and ARGV[1] ~= '' then
  held = ARGV[1]
  redis.call('SET', KEYS[1], held)
end
return held
