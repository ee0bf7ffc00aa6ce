#!lua flags=allow-oom,allow-cross-slot-keys
-- Tells an event that is not stored to every node that has a route.
--
-- KEYS  1 nodes, 2 meta
-- ARGV  1 stream, 2 data, 3 type, 4 what channels begin with, 5 home version or '', 6 the connection that is not given it
--       or '', 7 the trace that the publish belongs to or '', 8 the attributes of a CloudEvent or ''
-- Answer: the number of nodes that it was sent to.
require_home(KEYS[2], ARGV[5])
local now = clock()
local excluded = ARGV[6] == '' and '' or ' ' .. ARGV[6]
local trace = ARGV[7] == '' and '' or ' w=' .. ARGV[7]
local attributes = ARGV[8] == '' and '' or ' a=' .. ARGV[8]
local message = '!now ' .. ARGV[1] .. ' ' .. ARGV[3] .. excluded .. trace .. attributes .. '\n' .. ARGV[2]
local told = 0
local routes = redis.call('HGETALL', KEYS[1])
for at = 1, #routes, 2 do
  local deadline, tag = route_of(routes[at + 1])
  if deadline and deadline > now then
    send(ARGV[4], routes[at], tag, message)
    told = told + 1
  end
end
return told
