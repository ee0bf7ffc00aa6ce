#!lua flags=allow-oom
-- Throws away what a stream left behind that has moved, except where it went.
--
-- KEYS  1 meta, 2 events, 3 nodes, 4 collapse, 5 connections, 6 members, 7 roster
-- ARGV  1 version of its home, 2 the region it is, 3 ms for which that is known here
local version, sign, region, rest = home_of(redis.call('HGET', KEYS[1], 'home'))
if version == tonumber(ARGV[1]) and sign == '' and region == ARGV[2] and rest == 'unfinished' then
  redis.call('UNLINK', unpack(KEYS))
  redis.call('HSET', KEYS[1], 'home', whole(version) .. ' ' .. region)
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1
