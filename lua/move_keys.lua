#!lua flags=allow-oom
-- What idempotency keys are remembered with, and for how many ms more.
--
-- KEYS  once, of each key
-- Answer: for each of them what is remembered or '', and ms.
local held = {}
for _, key in ipairs(KEYS) do
  local known = redis.call('GET', key)
  held[#held + 1] = known or ''
  held[#held + 1] = known and whole(redis.call('PTTL', key)) or '0'
end
return held
