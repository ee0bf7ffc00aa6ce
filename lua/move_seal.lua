#!lua flags=allow-oom
-- Seals a stream that is being moved away: from here on callers are sent to its next home. The nodes that
-- follow it are notified.
--
-- KEYS  1 nodes, 2 meta
-- ARGV  1 version of the next home, 2 the region it is, 3 stream, 4 what channels begin with
-- Answer: 'sealed', also if it was; or 'superseded'.
local version, sign, region, rest = home_of(redis.call('HGET', KEYS[2], 'home'))
local next_version = tonumber(ARGV[1])
if version == next_version and sign == '' and region == ARGV[2] then
  return 'sealed'
end
if version ~= next_version - 1 or sign ~= '>' or region ~= ARGV[2] then
  return 'superseded'
end
local last = redis.call('HGET', KEYS[2], 'last')
if last and redis.call('EXISTS', KEYS[1]) == 1 then
  -- See told(): nothing is sent from here any more.
  redis.call('HSET', KEYS[2], 'told', last)
end
redis.call('HSET', KEYS[2], 'home', whole(next_version) .. ' ' .. region .. ' unfinished')
-- It has to be here until the directory has the same.
redis.call('PERSIST', KEYS[2])
for node in pairs(live_routes(KEYS[1], clock())) do
  redis.pcall('PUBLISH', ARGV[4] .. node, '!moved ' .. ARGV[3])
end
return 'sealed'
