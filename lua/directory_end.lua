#!lua flags=allow-oom
-- Removes a stream's home from the directory, if it still is this one.
--
-- KEYS  1 bucket of the directory, 2 changes
-- ARGV  1 stream, 2 its home as 'VERSION REGION', 3 changes kept
-- Answer: whether it was removed.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 's', ARGV[1], 'ended', ARGV[2])
return 1
