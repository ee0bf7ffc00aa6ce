-- What the scripts share that keep the members of a topic. It is put behind slots.lua.

-- A member as it is kept: 'SINCE NODE=CONNECTIONS,… INFO', with the connections that each node has of it.
local function member_of(value)
  local since, nodes, info = string.match(value or '', '^(%d+) (%S*) (.*)$')
  local member = { since = since, info = info or '', nodes = {} }
  for node, count in string.gmatch(nodes or '', '([^=,]+)=(%d+)') do
    member.nodes[node] = tonumber(count)
  end
  return member
end

-- Its connections on nodes that count.
local function connections_of(member, live)
  local sum = 0
  for node, count in pairs(member.nodes) do
    if live[node] then sum = sum + count end
  end
  return sum
end

-- Keeps a member, or removes one that no node has.
local function keep_member(members, roster, device, member)
  local nodes = {}
  for node, count in pairs(member.nodes) do
    nodes[#nodes + 1] = node .. '=' .. whole(count)
  end
  if #nodes == 0 then
    redis.call('HDEL', members, device)
    redis.call('ZREM', roster, device)
  else
    redis.call('HSET', members, device, member.since .. ' ' .. table.concat(nodes, ',') .. ' ' .. member.info)
    redis.call('ZADD', roster, 0, device)
  end
end

-- The devices after a name in the order of names.
local function devices_after(roster, after, limit)
  local from = after == '' and '-' or '(' .. after
  return redis.call('ZRANGE', roster, from, '+', 'BYLEX', 'LIMIT', 0, limit)
end

-- Publishes joins and leaves to the topic's nodes.
local function notify_nodes(topic, channels, live, now, notices)
  if #notices == 0 then return end
  local message = '!member ' .. topic .. ' ' .. whole(now) .. '\n' .. table.concat(notices, '\n')
  for node in pairs(live) do
    redis.pcall('PUBLISH', channels .. node, message)
  end
end
