#!lua flags=allow-oom
-- Erases a stream's events. Its position stays, so that ids go on above all that was shown.
--
-- KEYS  1 events, 2 nodes, 3 meta, 4 collapse, 5 a device's send history
-- ARGV  1 stream, 2 step, 3 ms the position lives, 4 what channels begin with,
--       5 home version or ''
require_home(KEYS[3], ARGV[5])
redis.call('UNLINK', KEYS[5])
if redis.call('EXISTS', KEYS[1], KEYS[3]) == 0 then
  return 0
end
local now = clock()
local stream = open(KEYS[1], KEYS[3], now, tonumber(ARGV[2]), ARGV[3], ARGV[5])
-- Not DEL: a large log would hold everybody up.
redis.call('UNLINK', KEYS[1], KEYS[4])
redis.call('HDEL', KEYS[3], 'kept')
-- Nodes keep the newest events in memory, and learn of this with their next sync; those that follow the
-- stream now are told to sync at once.
redis.call('HSET', KEYS[3], 'erased', stream.last)
local routes = redis.call('HGETALL', KEYS[2])
for at = 1, #routes, 2 do
  local deadline = tonumber(string.match(routes[at + 1], '^(%d+) '))
  if deadline and deadline > now then
    redis.pcall('PUBLISH', ARGV[4] .. routes[at], '!erased ' .. ARGV[1])
  end
end
return 1
