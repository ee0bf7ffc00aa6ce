#!lua flags=allow-oom
-- Gives up a move whose stream is still at home here.
--
-- KEYS  1 meta
-- ARGV  1 version that the next home would have had, 2 the region it would have been
local version, sign, region = home_of(redis.call('HGET', KEYS[1], 'home'))
if sign == '>' and version == tonumber(ARGV[1]) - 1 and region == ARGV[2] then
  redis.call('HSET', KEYS[1], 'home', whole(version))
end
return 1
