#!lua flags=allow-oom
-- Says how far a stream was handed over to the webhook, and writes down that it went on from there.
--
-- KEYS  1 meta, 2 whose turn it is
-- ARGV  none to ask; or 1 node, 2 what is expected to be written down or '', 3 what is to be
-- Answer: what is written down or '', and whether it was written now.
local known = redis.call('HGET', KEYS[1], 'checkpoint') or ''
if #ARGV == 0 or known ~= ARGV[2] or redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return { known, 0 }
end
-- The home needs no check: this topic never moves, and where it never was, it has no meta.
-- What a flush took is not begun anew without the rest of the position.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return { known, 0 }
end
redis.call('HSET', KEYS[1], 'checkpoint', ARGV[3])
return { ARGV[3], 1 }
