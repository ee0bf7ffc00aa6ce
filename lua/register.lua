#!lua flags=allow-oom
-- Takes a node's lease.
--
-- KEYS  1 lease
-- ARGV  1 ms it holds, 2… fields and values
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
