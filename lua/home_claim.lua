#!lua flags=allow-oom
-- Writes down that a stream's home is here, for a caller that has asked the directory. A newer record stays.
-- Where the home was ended as of that version or a newer one, see home_end.lua, it takes a newer one than that.
--
-- KEYS  1 events, 2 meta
-- ARGV  1 version, 2 step, 3 ms the position lives
-- Answer: the version as of which it was ended, 0 if it was not.
local known, ended = unpack(redis.call('HMGET', KEYS[2], 'home', 'ended'))
if not known and ended and tonumber(ended) >= tonumber(ARGV[1]) then
  return tonumber(ended)
end
if known and (tonumber(string.match(known, '^%d+') or '') or 0) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[2], 'home', ARGV[1])
redis.call('HDEL', KEYS[2], 'ended')
open(KEYS[1], KEYS[2], clock(), tonumber(ARGV[2]), ARGV[3], ARGV[1])
return 0
