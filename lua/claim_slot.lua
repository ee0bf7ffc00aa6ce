#!lua flags=allow-oom
-- Gives a connection its place among those of its device, or asserts the place that it has.
--
-- KEYS  1 connections, 2 nodes, 3 events, 4 meta
-- ARGV  1 connection, 2 node, 3 transport, 4 stamp or '' (it has none yet), 5 since when in ms (with a stamp),
--       6 most connections, 7 'newest' is refused or 'oldest' goes, 8 ms after which a stale entry is dropped,
--       9 step, 10 ms the position lives, 11 stream, 12 what channels begin with,
--       13 home version or '', 14 what is shown beside it or ''
-- Answer: 'granted', 'full' or 'passed'; stamp, since (of 'passed': the marks).
--
-- An entry counts while its node has a route: nobody has to renew it.
local connections = KEYS[1]
local now = clock()
local stream = open(KEYS[3], KEYS[4], now, tonumber(ARGV[9]), ARGV[10], ARGV[13])
local kicked, replaced = marks(stream)
local stamp = ARGV[4] ~= '' and tonumber(ARGV[4])
local since = ARGV[5]

if stamp and (stamp <= kicked or stamp <= replaced) then
  redis.call('HDEL', connections, ARGV[1])
  return { 'passed', whole(kicked), whole(replaced) }
end

local live = live_routes(KEYS[2], now)
local highest_stamp = math.max(kicked, replaced)
local others = {}
local held = redis.call('HGETALL', connections)
for at = 1, #held, 2 do
  local entry = slot_entry(held[at], held[at + 1])
  if entry then
    highest_stamp = math.max(highest_stamp, entry.stamp)
  end
  if held[at] == ARGV[1] then
    -- Asked again because the first answer was lost.
    if entry and not stamp then
      stamp, since = entry.stamp, entry.since
    end
  elseif entry and live[entry.node] then
    others[#others + 1] = entry
  elseif not entry or now - entry.asserted > tonumber(ARGV[8]) then
    redis.call('HDEL', connections, held[at])
  end
end

local surplus = #others + 1 - tonumber(ARGV[6])
-- A connection with a place keeps it: the newest is the one without.
if surplus > 0 and ARGV[7] ~= 'oldest' and not stamp then
  redis.call('HDEL', connections, ARGV[1])
  return { 'full', '0', '0' }
end
if not stamp then
  stamp = math.max(clock_us(), highest_stamp + 1)
  since = whole(now)
end
if surplus > 0 and ARGV[7] == 'oldest' then
  others[#others + 1] = { connection = ARGV[1], stamp = stamp }
  table.sort(others, function(a, b) return a.stamp < b.stamp end)
  local told = {}
  for at = 1, surplus do
    replaced = others[at].stamp
    redis.call('HDEL', connections, others[at].connection)
    if others[at].node then
      told[others[at].node] = true
    end
  end
  redis.call('HSET', KEYS[4], 'kick', whole(kicked) .. ' ' .. whole(replaced))
  for node in pairs(told) do
    redis.pcall('PUBLISH', ARGV[12] .. node, '!kick ' .. ARGV[11] .. ' ' .. whole(kicked) .. ' ' .. whole(replaced))
  end
  if stamp <= replaced then
    return { 'passed', whole(kicked), whole(replaced) }
  end
end
redis.call('HSET', connections, ARGV[1],
  table.concat({ whole(stamp), since, whole(now), ARGV[2], ARGV[3], ARGV[14] ~= '' and ARGV[14] or nil }, ' '))
redis.call('PEXPIRE', connections, ARGV[10])
return { 'granted', whole(stamp), since }
