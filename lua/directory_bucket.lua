#!lua flags=allow-oom
-- A part of the directory: streams and their homes.
--
-- KEYS  1 bucket of the directory
return redis.call('HGETALL', KEYS[1])
