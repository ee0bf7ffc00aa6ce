#!lua flags=allow-oom
-- Erases a stream's events. Its position stays, so that ids go on above all that was shown. Keys of another type than
-- they have to be, and a position that makes no sense, are repaired by it.
--
-- KEYS  1 events, 2 nodes, 3 meta, 4 collapse, 5 a device's send history, 6 connections
-- ARGV  1 stream, 2 step, 3 ms the position lives, 4 what channels begin with,
--       5 home version or ''
local TYPES = { 'stream', 'hash', 'hash', 'hash', 'hash', 'hash' }
for at, wanted in ipairs(TYPES) do
  local found = redis.call('TYPE', KEYS[at]).ok
  if found ~= wanted and found ~= 'none' then
    redis.call('UNLINK', KEYS[at])
  end
end
require_home(KEYS[3], ARGV[5])
redis.call('UNLINK', KEYS[5])
if redis.call('EXISTS', KEYS[1], KEYS[3]) == 0 then
  return 0
end
local now = clock()
local stream = open(KEYS[1], KEYS[3], now, tonumber(ARGV[2]), ARGV[3], ARGV[5])
-- Nodes keep the newest events in memory, and learn of this with their next sync; those that follow the
-- stream now are notified to sync at once. Written first: a user that may not write it may not erase either.
redis.call('HSET', KEYS[3], 'erased', stream.last)
-- Not DEL: a large log would hold everybody up.
redis.call('UNLINK', KEYS[1], KEYS[4])
redis.call('HDEL', KEYS[3], 'kept')
local routes = redis.call('HGETALL', KEYS[2])
for at = 1, #routes, 2 do
  local deadline = tonumber(string.match(routes[at + 1], '^(%d+) '))
  if deadline and deadline > now then
    redis.pcall('PUBLISH', ARGV[4] .. routes[at], '!erased ' .. ARGV[1])
  end
end
return 1
