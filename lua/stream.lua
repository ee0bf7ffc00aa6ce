-- What the scripts of one stream share. It is put between the first line of each of them and the rest.
--
-- Ids are compared as two numbers each. Lua's numbers are exact below 2^53: enough for milliseconds
-- until the year 287396, and for sequence numbers, which start anew with every millisecond.

-- The largest id there is. XRANGE refuses to begin after it.
local MAX_ID = '18446744073709551615-18446744073709551615'

-- Entries per XRANGE of a page, so that a page that ends early on its bytes has not pulled all of its
-- entries into the interpreter.
local CHUNK = 16

local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

-- Whether id a is above id b.
local function above(a, b)
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  return a_ms > b_ms or (a_ms == b_ms and a_seq > b_seq)
end

local function highest(a, b)
  if above(a, b) then return a end
  return b
end

-- The store's clock in milliseconds.
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- The same in microseconds: stamps of connections.
local function clock_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- A number without exponent or fraction.
local function whole(number)
  return string.format('%.0f', number)
end

-- What no new id may fall below: a lost tail had been shown up to there.
local function highest_shown(stream)
  return stream.fork and highest(stream.last, stream.fork.head) or stream.last
end

-- The id after `last`: the clock's millisecond, never at or below `last`. The step is random, so that
-- two masters that both go on from `last` do not give one id to two events.
local function next_id(last, now, step)
  local ms, seq = parts(last)
  if now > ms then
    return string.format('%.0f-%.0f', now, step)
  end
  return string.format('%.0f-%.0f', ms, seq + step)
end

-- Which region is a stream's home stands in its `meta` as
--   'V'           this one, as of version V
--   'V REGION'    REGION as of version V
-- and not at all where there is one region only. `meant` is the version with which the caller came, '*' from a
-- producer who takes any as long as the home is here, '' from one who knows nothing of regions. Nothing may have
-- been written before this is called.
local function check_home(known, meant)
  if not known then
    error({ err = 'HOMELESS the stream has no home in this region' })
  end
  local version, region = string.match(known, '^(%d+) ?(.*)$')
  -- The caller knows of a newer home, and it is here: this record was lost, or is about to be overwritten.
  if tonumber(meant) and tonumber(meant) > tonumber(version) then
    error({ err = 'HOMELESS the stream has a newer home' })
  end
  if region == '' then
    if not tonumber(meant) then return end
    error({ err = 'ELSEWHERE ' .. version .. ' - the stream came back to this region' })
  end
  error({ err = 'ELSEWHERE ' .. version .. ' ' .. region .. ' that region is the stream\'s home' })
end

-- The same check for those that need no more of the stream.
local function require_home(meta, meant)
  local known = redis.call('HGET', meta, 'home')
  if (known or '') ~= meant then
    check_home(known, meant)
  end
end

-- A stream's position; a birth if it has none, so that a flush is seen by whoever waits on an empty
-- stream. `position` is how long it lasts, in milliseconds, and `home` the version of its home that is meant.
local function open(events, meta, now, step, position, home)
  local known = redis.call('HMGET', meta, 'last', 'born', 'fork', 'erased', 'kick', 'home')
  if (known[6] or '') ~= (home or '') then
    check_home(known[6], home or '')
  end
  if known[1] then
    local stream = {
      key = events, meta = meta, last = known[1], born = known[2] or known[1], erased = known[4], kick = known[5],
    }
    if known[3] then
      local ancestor, head, before, mark = string.match(known[3], '^(%S+) (%S+) (%S+) (%S+)$')
      stream.fork = { ancestor = ancestor, head = head, before = before, mark = mark }
    end
    return stream
  end
  -- Events without a position are what somebody left who deleted only the one key. XADD would refuse
  -- ids below theirs until they expire.
  local newest = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
  local born = next_id(newest and newest[1] or '0-0', now, step)
  redis.call('HSET', meta, 'last', born, 'born', born)
  redis.call('PEXPIRE', meta, position)
  return { key = events, meta = meta, last = born, born = born }
end

-- Up to where nodes were told, '' when none ever was. All routes that there are were there for every event so
-- far: a publish removes those that lapsed, and whoever removes one writes down where the stream was then.
local function told(stream, nodes)
  if redis.call('EXISTS', nodes) == 1 then
    return stream.last
  end
  return redis.call('HGET', stream.meta, 'told') or ''
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
local function seat_entry(connection, value)
  local stamp, since, asserted, node, transport = string.match(value, '^(%d+) (%d+) (%d+) (%S+) (%S+)$')
  if stamp then
    return {
      connection = connection, stamp = tonumber(stamp), since = since, asserted = tonumber(asserted),
      node = node, transport = transport,
    }
  end
end

local function has(stream, id)
  return #redis.call('XRANGE', stream.key, id, id, 'COUNT', 1) > 0
end

-- The value of an entry's field, nil if it has none of that name.
local function field(entry, name)
  local fields = entry[2]
  for at = 1, #fields, 2 do
    if fields[at] == name then return fields[at + 1] end
  end
end

-- What a node's channel carries for an event.
local function message(stream, entry)
  local header = stream .. ' ' .. entry[1] .. ' ' .. field(entry, 'p') .. ' ' .. (field(entry, 't') or 'message')
  local expires, group = field(entry, 'x'), field(entry, 'c')
  if expires then
    header = header .. ' x=' .. expires
  end
  if group then
    header = header .. ' c=' .. group
  end
  return header .. '\n' .. field(entry, 'd')
end

-- Whether a reader at `id` stands in this history. It need not be an event: a log that expired left
-- `last` behind, and who was told of a fork waits at its mark.
local function knows(stream, id)
  local fork = stream.fork
  if stream.last == id or (fork and (fork.mark == id or fork.before == id)) then
    return true
  end
  local next = redis.call('XRANGE', stream.key, id, '+', 'COUNT', 1)[1]
  return next ~= nil and (next[1] == id or field(next, 'p') == id)
end

-- The answer of every read; an empty string stands for none.
local function answer(stream, from, entries, more, now)
  local fork = stream.fork
  local first = redis.call('XRANGE', stream.key, '-', '+', 'COUNT', 1)[1]
  return {
    from, stream.last, stream.born,
    fork and fork.ancestor or '', fork and fork.head or '', fork and fork.before or '', fork and fork.mark or '',
    first and first[1] or '', stream.erased or '', string.format('%.0f', now), more and 1 or 0, entries,
    stream.kick or '',
  }
end

-- An entry as readers are to have it: one that expired has lost its data and has 0 for its time, and one
-- whose collapse key came up again has a field `s`.
local function as_read(stream, entry, now)
  local fields, expires, group, prev = entry[2], nil, nil, nil
  for at = 1, #fields, 2 do
    local name = fields[at]
    if name == 'x' then
      expires = tonumber(fields[at + 1])
    elseif name == 'c' then
      group = fields[at + 1]
    elseif name == 'p' then
      prev = fields[at + 1]
    end
  end
  if expires and expires <= now then
    return { entry[1], { 'p', prev or '', 'x', '0' } }
  end
  if group then
    local newest = stream.newest[group]
    if newest == nil then
      newest = redis.call('HGET', stream.collapse, group)
      stream.newest[group] = newest
    end
    -- Any other than the newest of its key is older.
    if newest and newest ~= entry[1] then
      fields[#fields + 1] = 's'
      fields[#fields + 1] = '1'
    end
  end
  return entry
end

-- The newest id that a stream ever gave to an entry, also when that is gone.
local function newest_given(key)
  if redis.call('EXISTS', key) == 0 then
    return '0-0'
  end
  local info = redis.call('XINFO', 'STREAM', key)
  for at = 1, #info, 2 do
    if info[at] == 'last-generated-id' then return info[at + 1] end
  end
end

-- Entries in one direction up to the limits of a page, and whether there are more. `command` is XRANGE
-- or XREVRANGE, `start` the bound to begin at, `stop` the one to end at.
local function collect(stream, command, start, stop, limit, max_bytes, now)
  local entries, bytes = {}, 0
  -- What the store said of collapse keys, to be asked once for each.
  stream.newest = {}
  while true do
    local wanted = math.min(CHUNK, limit - #entries + 1)
    local chunk = redis.call(command, stream.key, start, stop, 'COUNT', wanted)
    for _, entry in ipairs(chunk) do
      if #entries >= limit or bytes >= max_bytes then
        return entries, true
      end
      entry = as_read(stream, entry, now)
      entries[#entries + 1] = entry
      bytes = bytes + #(field(entry, 'd') or '')
    end
    if #chunk < wanted then
      return entries, false
    end
    start = '(' .. entries[#entries][1]
  end
end

local function page_from(stream, from, limit, max_bytes, now)
  if from == MAX_ID then
    return answer(stream, from, {}, false, now)
  end
  local entries, more = collect(stream, 'XRANGE', '(' .. from, '+', limit, max_bytes, now)
  return answer(stream, from, entries, more, now)
end

-- Where reading on from a position begins. On the lost side of a fork nothing is known of it, so that is the
-- newest event that both sides share.
local function shared(stream, position)
  local fork = stream.fork
  if fork and above(position, fork.ancestor) and not above(position, fork.head) and not knows(stream, position) then
    return fork.ancestor
  end
  return position
end

-- The page after a reader's position.
local function page_after(stream, position, limit, max_bytes, now)
  return page_from(stream, shared(stream, position), limit, max_bytes, now)
end
