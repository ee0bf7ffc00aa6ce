-- What the scripts of moves share, behind what all scripts of a stream do. How a stream's home is written down is
-- said at check_home().

-- The home of a stream as it is written down: version, sign, region, and what follows.
local function home_of(known)
  local version, sign, region, rest = string.match(known or '', '^(%d+) ?([<>]?)(%S*) ?(.*)$')
  return tonumber(version), sign, region, rest
end

-- Whether the deadline is over before which the mover does something again.
local function lapsed(rest)
  return clock() > (tonumber(string.match(rest, '^%d+')) or 0)
end

-- Writes down that a stream is on its way here, and up to which entry it has come.
local function write_arrival(meta, version, region, ms, copied)
  redis.call('HSET', meta, 'home',
    whole(version) .. ' <' .. region .. ' ' .. whole(clock() + tonumber(ms)) .. ' ' .. copied)
end
