#!lua
-- Stores one event and tells it to every node that has a route.
--
-- KEYS  1 events, 2 nodes, 3 meta, 4 once (any key of the stream when there is no idempotency key)
-- ARGV  1 stream, 2 data, 3 type or '', 4 idempotency key or '', 5 step, 6 events kept,
--       7 ms the log lives, 8 ms the position lives, 9 ms a key lives, 10 what channels begin with
-- Answer: id, nodes told, and 0 stored, 1 stored before, 2 key used for another event.
--
-- No allow-oom: a store without room refuses publishes before anything is written.
local events, nodes, meta, once = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local data, kind, key = ARGV[2], ARGV[3], ARGV[4]

local digest
if key ~= '' then
  digest = redis.sha1hex(kind .. '\0' .. data)
  local known = redis.call('GET', once)
  if known then
    local id, known_digest = string.match(known, '^(%S+) (%S+)$')
    return { id, 0, known_digest == digest and 1 or 2 }
  end
end

local now = clock()
local stream = open(events, meta, now, tonumber(ARGV[5]), ARGV[8])
local prev = stream.last
local id = next_id(highest_shown(stream), now, tonumber(ARGV[5]))

local entry = { 'd', data, 'p', prev }
if kind ~= '' then
  entry[#entry + 1] = 't'
  entry[#entry + 1] = kind
end
if key ~= '' then
  entry[#entry + 1] = 'k'
  entry[#entry + 1] = key
end
redis.call('XADD', events, 'MAXLEN', '~', ARGV[6], id, unpack(entry))
redis.call('HSET', meta, 'last', id)
redis.call('PEXPIRE', events, ARGV[7])
redis.call('PEXPIRE', meta, ARGV[8])
if key ~= '' then
  redis.call('SET', once, id .. ' ' .. digest, 'PX', ARGV[9])
end

local told = 0
local message
local routes = redis.call('HGETALL', nodes)
for at = 1, #routes, 2 do
  local deadline = tonumber(string.match(routes[at + 1], '^(%d+) '))
  if deadline and deadline > now then
    message = message or
      (ARGV[1] .. ' ' .. id .. ' ' .. prev .. ' ' .. (kind ~= '' and kind or 'message') .. '\n' .. data)
    -- pcall: the event is stored, and an error here would say that it is not. Whoever was not told
    -- finds it with the next sync.
    redis.pcall('PUBLISH', ARGV[10] .. routes[at], message)
    told = told + 1
  else
    redis.call('HDEL', nodes, routes[at])
  end
end
return { id, told, 0 }
