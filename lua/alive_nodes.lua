#!lua flags=allow-oom
-- The nodes whose lease holds.
--
-- KEYS  1 nodes of the region
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')
