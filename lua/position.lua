#!lua flags=allow-oom
-- Where a stream stands. Nothing is written.
--
-- KEYS  1 meta
-- ARGV  1 home version or ''
-- Answer: the newest id ever shown, or ''.
require_home(KEYS[1], ARGV[1])
return sound(redis.call('HGET', KEYS[1], 'last'), clock()) or ''
