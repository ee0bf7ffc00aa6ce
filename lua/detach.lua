#!lua flags=allow-oom
-- Removes a node's route, if it is of this registration or none is named, and the entries of connections that
-- the node left behind.
--
-- KEYS  1 nodes, 2 meta, 3 connections
-- ARGV  1 node, 2 registration or ''
-- Answer: whether the node has no route now.
local route = redis.call('HGET', KEYS[1], ARGV[1])
if route and ARGV[2] ~= '' and string.match(route, '^%d+ (%d+)') ~= ARGV[2] then
  return 0
end
local last = sound(redis.call('HGET', KEYS[2], 'last'), clock())
if route and last then
  -- It was sent everything so far: see told().
  redis.call('HSET', KEYS[2], 'told', last)
end
redis.call('HDEL', KEYS[1], ARGV[1])
local held = redis.call('HGETALL', KEYS[3])
for at = 1, #held, 2 do
  local entry = slot_entry(held[at], held[at + 1])
  if entry and entry.node == ARGV[1] then
    redis.call('HDEL', KEYS[3], held[at])
  end
end
return 1
