#!lua flags=allow-oom
-- Whether the directory has a home for a stream.
--
-- KEYS  1 bucket of the directory
-- ARGV  1 stream
return redis.call('HEXISTS', KEYS[1], ARGV[1])
