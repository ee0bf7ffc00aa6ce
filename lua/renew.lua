#!lua flags=allow-oom
-- Renews a node's lease, only if it still exists: a node that slept through its end was cleaned up
-- after, and has to start anew under another name.
--
-- KEYS  1 lease
-- ARGV  1 ms it holds
-- Answer: whether it existed.
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
