#!lua flags=allow-oom
-- Gives a claim back, if it is still theirs.
--
-- KEYS  1 claim
-- ARGV  1 its holder
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
return 1
