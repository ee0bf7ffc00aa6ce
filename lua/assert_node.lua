#!lua flags=allow-oom
-- Writes down until when a node's lease holds, and counts the nodes whose lease does.
--
-- KEYS  1 nodes of the region
-- ARGV  1 node, 2 ms it holds
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[2])), ARGV[1])
return redis.call('ZCOUNT', KEYS[1], string.format('(%.0f', now), '+inf')
