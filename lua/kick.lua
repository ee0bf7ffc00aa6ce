#!lua flags=allow-oom
-- Tells all connections that a device has now to go.
--
-- KEYS  1 connections, 2 nodes, 3 events, 4 meta
-- ARGV  1 stream, 2 what channels begin with, 3 step, 4 ms the position lives, 5 home version or ''
-- Answer: how many connections it has.
--
-- The mark stays with the device, so that a node that misses the message finds it with its next sync.
require_home(KEYS[4], ARGV[5])
local now = clock()
local live = live_routes(KEYS[2], now)
local count, highest_stamp = 0, 0
local held = redis.call('HGETALL', KEYS[1])
for at = 1, #held, 2 do
  local entry = slot_entry(held[at], held[at + 1])
  if entry then
    highest_stamp = math.max(highest_stamp, entry.stamp)
    count = count + (live[entry.node] and 1 or 0)
  end
end
if #held == 0 and next(live) == nil then
  return 0
end
local stream = open(KEYS[3], KEYS[4], now, tonumber(ARGV[3]), ARGV[4], ARGV[5])
local kicked, replaced = marks(stream)
local mark = whole(math.max(clock_us(), highest_stamp, kicked)) .. ' ' .. whole(replaced)
redis.call('HSET', KEYS[4], 'kick', mark)
redis.call('DEL', KEYS[1])
for node in pairs(live) do
  redis.pcall('PUBLISH', ARGV[2] .. node, '!kick ' .. ARGV[1] .. ' ' .. mark)
end
return count
