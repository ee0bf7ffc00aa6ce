-- What the scripts share that send events to nodes. It is put behind stream.lua.

-- A route is kept as 'DEADLINE REGISTRATION', and behind that a tag if the node is subscribed at this master of a Cluster,
-- to a sharded channel that lies in a slot of it. These are the deadline and the tag, '' for none; nil if it makes no sense.
local function route_of(value)
  local deadline, tag = string.match(value, '^(%d+) ?%d* ?(%d*)')
  return tonumber(deadline), tag
end

-- Sends a node an event: over its sharded channel at this master, which costs no other server anything. If nobody is
-- subscribed there, or the slot of that channel is elsewhere by now, over the channel that all servers of a Cluster pass on.
local function send(channels, node, tag, message)
  if tag ~= '' then
    local received = redis.pcall('SPUBLISH', channels .. '{' .. tag .. '}:' .. node, message)
    if type(received) == 'number' and received > 0 then return end
  end
  redis.call('PUBLISH', channels .. node, message)
end
