#!lua flags=allow-oom
-- The leases of producers, those in front that lapse first.
--
-- KEYS  1 leases, 2 deadlines
-- ARGV  1 most leases to name
-- Answer: how many there are, then of each that is named: stream, ms it holds, when it was taken or renewed last,
--         when it lapses, and `held` or, once its lapse is being published, `lapsed`.
local answer = { redis.call('ZCARD', KEYS[2]) }
local found = redis.call('ZRANGE', KEYS[2], 0, tonumber(ARGV[1]) - 1, 'WITHSCORES')
for at = 1, #found, 2 do
  local lease = redis.call('HGET', KEYS[1], found[at]) or ''
  local ms, renewed, state = string.match(lease, '^%S+ (%d+) (%d+) (%S+)')
  if ms then
    answer[#answer + 1] = { found[at], ms, renewed, whole(tonumber(found[at + 1])), state }
  end
end
return answer
