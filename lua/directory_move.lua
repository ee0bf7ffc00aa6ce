#!lua
-- Records that a stream's home is another than before.
--
-- KEYS  1 bucket of the directory, 2 changes
-- ARGV  1 stream, 2 its home before as 'VERSION REGION', 3 its home now, 4 changes kept
-- Answer: the home that it has now.
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known and known ~= ARGV[2] then
  return known
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 's', ARGV[1], 'h', ARGV[3])
return ARGV[3]
