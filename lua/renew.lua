#!lua flags=allow-oom
-- Renews a node's lease, only if it still exists: a node that slept through its end was cleaned up
-- after, and has to start anew under another name.
--
-- KEYS  1 lease, 2 streams of the node
-- ARGV  1 ms it holds, 2 ms that the node's streams are kept from now on
-- Answer: whether it existed.
local existed = redis.call('PEXPIRE', KEYS[1], ARGV[1])
if existed == 1 then
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
return existed
