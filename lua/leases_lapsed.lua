#!lua flags=allow-oom
-- Finds leases that have lapsed, and ends them: from here on their holders can't renew them.
--
-- KEYS  1 leases, 2 deadlines
-- ARGV  1 most leases to look at, 2 ms for which the store could be reached without a break, 3 the store's ms at
--       the look before, 4 ms that two looks may be apart
-- Answer: the store's ms, and of each lease: stream, id, ms it held, when it was taken or renewed last.
--
-- After a break no producer may have been able to renew: a lease that ended in it holds for its whole time once
-- more, counted from when the break was over.
local now = clock()
local reached = tonumber(ARGV[2])
if now - tonumber(ARGV[3]) > tonumber(ARGV[4]) then
  reached = 0
end
local found = { whole(now) }
for _, stream in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', whole(now), 'LIMIT', 0, ARGV[1])) do
  local lease = redis.call('HGET', KEYS[1], stream) or ''
  local id, ms, renewed, state, key = string.match(lease, '^(%S+) (%d+) (%d+) (%S+) ?(%S*)$')
  if not id then
    redis.call('HDEL', KEYS[1], stream)
    redis.call('ZREM', KEYS[2], stream)
  elseif state == 'held' and tonumber(ms) > reached then
    redis.call('ZADD', KEYS[2], whole(now + tonumber(ms) - reached), stream)
  else
    redis.call('HSET', KEYS[1], stream, id .. ' ' .. ms .. ' ' .. renewed .. ' lapsed ' .. key)
    -- Behind all others: one whose lapse can't be published does not hold up those of others.
    redis.call('ZADD', KEYS[2], whole(now), stream)
    found[#found + 1] = { stream, id, ms, renewed }
  end
end
return found
