-- What the scripts share that keep the connections of a device. It is put behind stream.lua.

-- The same in microseconds: stamps of connections.
local function clock_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- Up to which stamps connections of the device were kicked, and gave way to others.
local function marks(stream)
  local kicked, replaced = string.match(stream.kick or '', '^(%d+) (%d+)$')
  return tonumber(kicked or 0), tonumber(replaced or 0)
end

-- The nodes whose routes hold.
local function live_routes(nodes, now)
  local live = {}
  local routes = redis.call('HGETALL', nodes)
  for at = 1, #routes, 2 do
    local deadline = tonumber(string.match(routes[at + 1], '^(%d+) '))
    if deadline and deadline > now then
      live[routes[at]] = true
    end
  end
  return live
end

-- An entry of a device's connections, nil if it makes no sense.
local function slot_entry(connection, value)
  local stamp, since, asserted, node, transport, info = string.match(value, '^(%d+) (%d+) (%d+) (%S+) (%S+) ?(.*)$')
  if stamp then
    return {
      connection = connection, stamp = tonumber(stamp), since = since, asserted = tonumber(asserted),
      node = node, transport = transport, info = info,
    }
  end
end
