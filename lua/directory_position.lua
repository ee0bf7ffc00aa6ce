#!lua flags=allow-oom
-- Where the changes of the directory stand. The first to ask begins them, so that there always is a position.
--
-- KEYS  1 changes
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
return newest and newest[1] or redis.call('XADD', KEYS[1], '*', 'began', '1')
