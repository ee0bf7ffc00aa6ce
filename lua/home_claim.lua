#!lua flags=allow-oom
-- Writes down that a stream's home is here, for a caller that has asked the directory. A newer record stays.
--
-- KEYS  1 events, 2 meta
-- ARGV  1 version, 2 step, 3 ms the position lives
local known = redis.call('HGET', KEYS[2], 'home')
if known and (tonumber(string.match(known, '^%d+') or '') or 0) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[2], 'home', ARGV[1])
open(KEYS[1], KEYS[2], clock(), tonumber(ARGV[2]), ARGV[3], ARGV[1])
return 1
