#!lua flags=allow-oom,allow-cross-slot-keys
-- Tells one node over its channel an event that is stored already, if the node has a route.
--
-- KEYS  1 events, 2 nodes
-- ARGV  1 stream, 2 the event's id, 3 node, 4 what channels begin with
-- Answer: whether it was published.
local route = redis.call('HGET', KEYS[2], ARGV[3])
if not route then
  return 0
end
local entry = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2], 'COUNT', 1)[1]
-- Trimmed already: the node finds the hole with the next event or sync.
if not entry then
  return 0
end
local function value(name)
  return field(entry, name) or ''
end
local told =
  message(ARGV[1], entry[1], value('p'), value('t'), value('x'), value('c'), value('e'), value('w'), value('a'), value('d'))
local _, tag = route_of(route)
send(ARGV[4], ARGV[3], tag or '', told)
return 1
