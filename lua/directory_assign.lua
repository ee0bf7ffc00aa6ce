#!lua
-- Gives a stream its first home, unless it has one.
--
-- KEYS  1 bucket of the directory, 2 changes
-- ARGV  1 stream, 2 home as 'VERSION REGION', 3 changes kept
-- Answer: the home that it has now.
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then
  return known
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 's', ARGV[1], 'h', ARGV[2])
return ARGV[2]
