#!lua flags=allow-oom
-- Makes one node the one that does a work: cleans up after another, or drains an ingress stream. Its claim
-- lapses unless it is made again, so that the next one follows if its holder stops half way.
--
-- KEYS  1 claim
-- ARGV  1 the claimant, 2 ms the claim holds
-- Answer: whether the claim is theirs.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
