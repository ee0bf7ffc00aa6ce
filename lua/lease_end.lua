#!lua flags=allow-oom
-- Forgets a lease, if it is still this one and in this state.
--
-- KEYS  1 leases, 2 deadlines
-- ARGV  1 stream, 2 id, 3 state: `held` when its holder ends it, `lapsed` when its lapse was published
-- Answer: whether it was.
local id, state = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%S+) %d+ %d+ (%S+)')
if id ~= ARGV[2] or state ~= ARGV[3] then
  return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
