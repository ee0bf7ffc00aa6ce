#!lua flags=allow-oom
-- Renews a producer's lease, if it is still in force: once its lapse is being published, it is over.
--
-- KEYS  1 leases, 2 deadlines
-- ARGV  1 stream, 2 id, 3 ms it holds
-- Answer: whether it was in force.
local now = clock()
local id, state, key = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%S+) %d+ %d+ (%S+) ?(%S*)$')
if id ~= ARGV[2] or state ~= 'held' then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], id .. ' ' .. ARGV[3] .. ' ' .. whole(now) .. ' held ' .. key)
redis.call('ZADD', KEYS[2], whole(now + tonumber(ARGV[3])), ARGV[1])
return 1
