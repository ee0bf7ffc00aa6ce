#!lua
-- Counts how many connections in a row a device made at nodes of one region, and returns when it is to be moved there.
--
-- KEYS  1 meta
-- ARGV  1 region of the node, 2 connections in a row, 3 ms over which they are spread at least, 4 whether it may be
--       moved now, 5 home version or ''
-- Answer: whether to move it now. Then, as behind each move, it is counted anew.
local known = redis.call('HMGET', KEYS[1], 'home', 'via')
if (known[1] or '') ~= ARGV[5] then
  check_home(known[1], ARGV[5])
end
local now, wanted = clock(), tonumber(ARGV[2])
local region, count, since = string.match(known[2] or '', '^(%S+) (%d+) (%d+)$')
if region ~= ARGV[1] then
  count, since = 0, now
end
count = math.min(tonumber(count) + 1, wanted)
local moving = string.find(known[1] or '', '>', 1, true)
if ARGV[4] == '1' and count == wanted and now - tonumber(since) >= tonumber(ARGV[3]) and not moving then
  redis.call('HDEL', KEYS[1], 'via')
  return 1
end
redis.call('HSET', KEYS[1], 'via', ARGV[1] .. ' ' .. whole(count) .. ' ' .. whole(since))
return 0
