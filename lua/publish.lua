#!lua flags=allow-cross-slot-keys
-- Stores one event and publishes it to every node that has a route.
--
-- KEYS  1 events, 2 nodes, 3 meta, 4 collapse, 5 once (any key of the stream when there is no idempotency key)
-- ARGV  1 stream, 2 data, 3 type or '', 4 idempotency key or '', 5 step, 6 events kept,
--       7 ms the log lives, 8 ms the position lives, 9 ms a key lives, 10 what channels begin with,
--       11 ms after which the event expires or '', 12 collapse key or '', 13 of an event out of an ingress
--       stream: what that is called, the entry, and the entry before it for the same stream if both are on
--       their way; otherwise '', 14 home version or '', 15 the connection that is not
--       given the event or '', 16 the trace that the publish belongs to or '', 17 the attributes of a CloudEvent or '';
--       where the caller reaches nodes by itself: 18 the store's ms until which it does, 19 the nodes, each with a space
--       before and behind it
-- Answer: id, number of nodes that it was sent to, 0 stored or 1 stored before or 2 key used for another event, and, of an event that
--         was stored now, the id of the one before it; with 18 and 19 also the store's ms, the nodes that the
--         caller has to reach, and those that got it over their channels. Instead of the id the newest
--         entry taken, with 4: an entry as new as this was taken before; or '', with 5: the one before it was
--         not taken.
--
-- No allow-oom: a store without room refuses publishes before anything is written. allow-cross-slot-keys: sharded channels
-- of nodes lie in other slots of the same master; all keys are in one.
local events, nodes, meta, collapse, once = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local data, kind, key, ttl, group = ARGV[2], ARGV[3], ARGV[4], ARGV[11], ARGV[12]
local excluded, trace, attributes = ARGV[15], ARGV[16], ARGV[17]

-- Milliseconds ahead of need, at most, that a log's life is prolonged.
local AHEAD_OF_NEED = 60000

-- Collapse keys that are remembered; over that, only those that are used most newly are.
local MAX_GROUPS, KEPT_GROUPS = 256, 192

-- Before a key or a mark here counts, as both go with a stream that moves. open() checks all others.
if ARGV[14] ~= '' and (key ~= '' or ARGV[13] ~= '') then
  require_home(meta, ARGV[14])
end

-- The mark of an ingress stream is its newest entry that this stream took: `meta` holds a NAME=ID word for
-- each of them, as regions have one each. These are the words with this entry taken.
local marks
if ARGV[13] ~= '' then
  local ingress, taken, after = string.match(ARGV[13], '^(%S+) (%S+) ?(%S*)$')
  local mark
  marks = ingress .. '=' .. taken
  for name, id in string.gmatch(redis.call('HGET', meta, 'ingress') or '', '(%S-)=(%S+)') do
    -- A mark ahead of the clock is of an entry that no store gave an id to. It would refuse all that come.
    if name == ingress then
      mark = sound(id, clock())
    elseif sound(id, clock()) then
      marks = marks .. ' ' .. name .. '=' .. id
    end
  end
  if mark and not above(taken, mark) then
    return { mark, 0, 4 }
  end
  if after ~= '' and (not mark or above(after, mark)) then
    return { '', 0, 5 }
  end
end

local digest
if key ~= '' then
  local body = kind .. '\0' .. data
  if ttl ~= '' or group ~= '' then
    body = body .. '\0' .. ttl .. '\0' .. group
  end
  digest = redis.sha1hex(body)
  local known = redis.call('GET', once)
  if known then
    local id, known_digest = string.match(known, '^(%S+) (%S+)$')
    if known_digest ~= digest then
      return { id, 0, 2 }
    end
    if marks then
      redis.call('HSET', meta, 'ingress', marks)
      redis.call('PERSIST', meta)
    end
    return { id, 0, 1 }
  end
end

local now, step, life = clock(), tonumber(ARGV[5]), tonumber(ARGV[7])

-- The id of the newest event, that of this one, and `kept`, see below. Nearly all streams have a sound position, are at
-- home here and never forked: of those no more is read than this takes.
local function place()
  local known = redis.call('HMGET', meta, 'last', 'home', 'fork', 'kept')
  local ms, seq = string.match(known[1] or '', '^(%d+)-(%d+)$')
  ms, seq = tonumber(ms), tonumber(seq)
  if ms and ms <= now + AHEAD and seq < MAX_SEQUENCE and (known[2] or '') == ARGV[14] and not known[3] then
    local kept = tonumber(known[4] or '')
    return known[1], id_after(ms, seq, now, step), kept and kept > 0 and kept < 2 ^ 53 and kept
  end
  local stream = open(events, meta, now, step, ARGV[8], ARGV[14])
  return stream.last, next_id(highest_shown(stream), now, step), stream.kept
end

local prev, id, kept = place()
local expires = ttl == '' and '' or whole(now + tonumber(ttl))

local entry = { 'd', data, 'p', prev }
local function put(name, value)
  if value ~= '' then
    entry[#entry + 1] = name
    entry[#entry + 1] = value
  end
end
put('t', kind)
put('k', key)
put('x', expires)
put('c', group)
put('e', excluded)
put('w', trace)
put('a', attributes)

-- All that can be refused comes before the first write, or is undone: an event that is stored, and not acknowledged, is
-- published once more, and one that the position does not cover is a gap to subscribers.
local routes = redis.call('HGETALL', nodes)
if group ~= '' then
  redis.call('HLEN', collapse)
end
-- The log's life is prolonged ahead of need, as saying it anew with each event costs nearly as much as the event:
-- `kept` is until when it has to live. The position outlives it by more than what is ahead.
local prolonged, forbidden
if not kept or kept < now + life then
  prolonged = whole(now + life + math.min(AHEAD_OF_NEED, math.floor(life / 16)))
  forbidden = not redis.acl_check_cmd('PEXPIREAT', events, prolonged) and 'PEXPIREAT'
    or not redis.acl_check_cmd('PEXPIRE', meta, ARGV[8]) and 'PEXPIRE'
end
if key ~= '' and not redis.acl_check_cmd('SET', once, '') then
  forbidden = 'SET'
elseif marks and not redis.acl_check_cmd('PERSIST', meta) then
  forbidden = 'PERSIST'
end
if forbidden then
  error({ err = 'NOPERM the user may not run ' .. forbidden .. ' on the keys of a stream' })
end

if prolonged then
  redis.call('HSET', meta, 'last', id, 'kept', prolonged)
else
  redis.call('HSET', meta, 'last', id)
end
local added = redis.pcall('XADD', events, 'MAXLEN', '~', ARGV[6], id, unpack(entry))
if type(added) == 'table' and added.err then
  redis.call('HSET', meta, 'last', prev, 'kept', '0')
  error(added)
end
if prolonged then
  redis.call('PEXPIREAT', events, prolonged)
  -- Also behind an event without a key: what is known of the keys lives as long as the log.
  redis.call('PEXPIREAT', collapse, prolonged)
  if not marks then
    redis.call('PEXPIRE', meta, ARGV[8])
  end
end
if marks then
  redis.call('HSET', meta, 'ingress', marks)
  -- It has to be there for as long as the entry is, whatever happens meanwhile. The removal of that lets it
  -- expire again.
  redis.call('PERSIST', meta)
end
if group ~= '' then
  redis.call('HSET', collapse, group, id)
  redis.call('PEXPIREAT', collapse, prolonged or whole(kept))
  if redis.call('HLEN', collapse) > MAX_GROUPS then
    -- Some at a time, as looking for those that were used longest ago takes reading all.
    local known, groups = redis.call('HGETALL', collapse), {}
    for at = 1, #known, 2 do
      groups[#groups + 1] = { name = known[at], newest = known[at + 1] }
    end
    table.sort(groups, function(a, b) return above(b.newest, a.newest) end)
    for at = 1, #groups - KEPT_GROUPS do
      redis.call('HDEL', collapse, groups[at].name)
    end
  end
end
if key ~= '' then
  redis.call('SET', once, id .. ' ' .. digest, 'PX', ARGV[9])
end

-- A script that was held up on its way finds that its time is over, and publishes to all nodes: its caller may have
-- given up, and would not reach those that were left out.
local linked = ARGV[19]
if linked and now >= tonumber(ARGV[18]) then
  linked = ''
end

local by_caller, by_channel = {}, {}
local told
for at = 1, #routes, 2 do
  local node = routes[at]
  local deadline, tag = route_of(routes[at + 1])
  if not deadline or deadline <= now then
    redis.call('HDEL', nodes, node)
    redis.call('HSET', meta, 'told', prev)
  elseif linked and string.find(linked, ' ' .. node .. ' ', 1, true) then
    by_caller[#by_caller + 1] = node
  else
    told = told or message(ARGV[1], id, prev, kind, expires, group, excluded, trace, attributes, data)
    -- pcall: the event is stored, and an error here would mean that it is not. A node that did not get it
    -- finds it with the next sync.
    pcall(send, ARGV[10], node, tag, told)
    by_channel[#by_channel + 1] = node
  end
end
local count = #by_caller + #by_channel
if linked then
  return { id, count, 0, prev, string.format('%.0f', now), by_caller, by_channel }
end
return { id, count, 0, prev }
