#!lua flags=allow-oom
-- Changes of the directory after a position. Its own entry is still there unless changes were trimmed, and
-- then some after it may be missing too.
--
-- KEYS  1 changes
-- ARGV  1 position, 2 most changes wanted
-- Answer: whether the position is known, then the changes.
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1], 'COUNT', 1) == 0 then
  return { 0, {} }
end
return { 1, redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2]) }
