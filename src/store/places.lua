-- The requests that all replicas together may have under way, each of which has a place.
-- KEYS: the places. ARGV: the milliseconds after which a place that nobody leaves is free again.
-- Returns the position of a place that was free and is taken now, or 0.
for position, key in ipairs(KEYS) do
  if redis.call('SET', key, 1, 'NX', 'PX', ARGV[1]) then
    return position
  end
end
return 0
