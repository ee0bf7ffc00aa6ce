#!lua
-- Gives a producer the lease of a stream, unless somebody has it.
--
-- KEYS  1 leases, 2 deadlines
-- ARGV  1 stream, 2 id of the new lease, 3 ms it holds, 4 idempotency key or '', 5 most leases
-- Answer: 'taken' or 'again' and the id; 'held' and the ms until it lapses; 'full' and ''. With the key of the
--         lease that is held, the caller is its holder, which did not get the answer: the lease is renewed.
--
-- A lease is the words ID MS RENEWED STATE KEY: how long it holds, when it was taken or renewed last, and
-- `held` or, once its lapse is being published, `lapsed`.
local now = clock()
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then
  local id, state, key = string.match(known, '^(%S+) %d+ %d+ (%S+) ?(%S*)$')
  if ARGV[4] == '' or key ~= ARGV[4] or state ~= 'held' then
    local left = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or now) - now
    return { 'held', whole(math.max(left, 0)) }
  end
  ARGV[2] = id
elseif redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[5]) then
  return { 'full', '' }
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. whole(now) .. ' held ' .. ARGV[4])
redis.call('ZADD', KEYS[2], whole(now + tonumber(ARGV[3])), ARGV[1])
return { known and 'again' or 'taken', ARGV[2] }
