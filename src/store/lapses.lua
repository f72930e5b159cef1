-- Which lapses are counted: of the replicas that find one, the first counts it.
-- KEYS: the sorted set of those that are counted, by when. ARGV: how long they are remembered, in seconds, and names.
-- Returns for each name 1 where the caller is the first, or 0.
local now = tonumber(redis.call('TIME')[1])
local first = {}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[1]))
for position = 2, #ARGV do
  first[position - 1] = redis.call('ZADD', KEYS[1], 'NX', now, ARGV[position])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return first
