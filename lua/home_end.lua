#!lua flags=allow-oom
-- Ends a stream's home here, if nothing of the stream is left and nobody follows it. From here on this region is its home
-- only as of a newer version, see home_claim.lua: so who comes meanwhile asks the directory first.
--
-- KEYS  1 events, 2 nodes, 3 meta
-- ARGV  1 version of its home, 2 ms for which that is known here
-- Answer: whether it is ended.
local ended = redis.call('HGET', KEYS[3], 'ended')
if redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 or redis.call('HLEN', KEYS[3]) > (ended and 1 or 0) then
  return 0
end
if not ended or tonumber(ended) < tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[3], 'ended', ARGV[1])
end
redis.call('PEXPIRE', KEYS[3], ARGV[2])
return 1
