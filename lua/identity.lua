#!lua flags=allow-oom
-- What a server is called, written by the first to come: two servers must not be taken for one another.
--
-- KEYS  1 identity
-- ARGV  fields and values to write where there are none
-- Answer: the values that hold, in that order.
local held = {}
for at = 1, #ARGV, 2 do
  redis.call('HSETNX', KEYS[1], ARGV[at], ARGV[at + 1])
  held[#held + 1] = redis.call('HGET', KEYS[1], ARGV[at])
end
return held
