-- What the scripts of one stream share. It is put between the first line of each of them and the rest, and
-- made anew whenever one runs: what only some need stands in pages.lua and slots.lua.
--
-- Ids are compared as two numbers each. Lua's numbers are exact below 2^53: enough for milliseconds
-- until the year 287396, and for sequence numbers, which start anew with every millisecond.

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
local function id_after(ms, seq, now, step)
  if now > ms then
    return string.format('%.0f-%.0f', now, step)
  end
  return string.format('%.0f-%.0f', ms, seq + step)
end

local function next_id(last, now, step)
  local ms, seq = parts(last)
  return id_after(ms, seq, now, step)
end

-- Which region is a stream's home stands in its `meta` as
--   'V'                           this one, as of version V
--   'V >REGION DEADLINE'          this one; it is being copied to REGION, and its mover does something again
--                                 before the deadline
--   'V REGION unfinished'         REGION as of version V; not all is done yet that a move ends with
--   'V REGION'                    REGION as of version V
--   'V REGION merging ID'         the same; what is here after the entry ID still has to be added there, see cede.lua
--   'V <REGION DEADLINE COPIED'   this one, as soon as all is copied from REGION: so far up to the entry COPIED
-- and not at all where there is one region only. `meant` is the version with which the caller came, '*' from a
-- producer that takes any as long as the home is here, '' from one without regions. Nothing may have
-- been written before this is called.
local function check_home(known, meant)
  local version, sign, region, rest = string.match(known or '', '^(%d+) ?([<>]?)(%S*) ?(.*)$')
  if not version then
    error({ err = 'HOMELESS the stream has no home in this region' })
  end
  local asked, held = tonumber(meant), tonumber(version)
  -- The caller has a newer home, and it is here: this record was lost, or is about to be overwritten.
  if asked and asked > held then
    error({ err = 'HOMELESS the stream has a newer home' })
  end
  local stalled = sign ~= '' and clock() > tonumber(string.match(rest, '^%d+'))
  if sign == '<' then
    if asked == held then
      local state = stalled and ' stalled' or ' soon'
      error({ err = 'ARRIVING ' .. version .. ' ' .. region .. state .. ' the stream is on its way to this region' })
    end
    -- As long as it is not sealed, that is its home, and afterwards callers there are refused with the new one.
    error({ err = 'ELSEWHERE ' .. whole(held - 1) .. ' ' .. region .. ' that region is the stream\'s home' })
  end
  if sign == '>' or region == '' then
    if not asked or (asked == held and not stalled) then return end
    if asked == held then
      error({ err = 'LEAVING ' .. version .. ' ' .. region .. ' a move of the stream is to be completed' })
    end
    error({ err = 'ELSEWHERE ' .. version .. ' - the stream came back to this region' })
  end
  local state = rest == 'unfinished' and ' unfinished' or ''
  error({ err = 'ELSEWHERE ' .. version .. ' ' .. region .. state .. ' that region is the stream\'s home' })
end

-- The same check for those that need no more of the stream.
local function require_home(meta, meant)
  local known = redis.call('HGET', meta, 'home')
  if (known or '') ~= meant then
    check_home(known, meant)
  end
end

-- How far ids may be ahead of the clock, in milliseconds: a master whose clock was ahead gave such, but not by days.
local AHEAD = 86400000

-- The second number of an id stays below, so that there is room for all that will be added to it, see next_id().
local MAX_SEQUENCE = 2 ^ 52

-- The id, if this store may have given it by now; nil for whatever else stands there.
local function sound(id, now)
  local ms, seq = string.match(id or '', '^(%d+)-(%d+)$')
  if ms and tonumber(ms) <= now + AHEAD and tonumber(seq) < MAX_SEQUENCE then
    return id
  end
end

-- Where reading a log ends: what lies beyond was given by nobody.
local function newest_possible(now)
  return whole(now + AHEAD)
end

-- The newest entry that may be in a log, '0-0' for none.
local function newest_kept(events, now)
  local newest = redis.call('XREVRANGE', events, newest_possible(now), '-', 'COUNT', 1)[1]
  return newest and sound(newest[1], now) or '0-0'
end

-- What is known of a stream's position, nil if it has none. Anybody with access to Redis can write there: what makes
-- no sense counts as not there. `home` is the version of its home that is meant.
local function known_position(events, meta, now, home)
  local known = redis.call('HMGET', meta, 'last', 'epoch', 'fork', 'erased', 'kick', 'home', 'kept')
  if (known[6] or '') ~= (home or '') then
    check_home(known[6], home or '')
  end
  local last = sound(known[1], now)
  if known[1] and not last then
    -- As far as the log shows.
    local newest = newest_kept(events, now)
    last = newest ~= '0-0' and newest
  end
  if not last then return end
  local stream = {
    key = events, meta = meta, now = now, last = last, epoch = sound(known[2], now) or last,
    erased = sound(known[4], now), kick = known[5], kept = tonumber(string.match(known[7] or '', '^%d+$') or ''),
  }
  if stream.kept and stream.kept > 2 ^ 53 then stream.kept = nil end
  local ancestor, head, before, mark, next = string.match(known[3] or '', '^(%S+) (%S+) (%S+) (%S+) ?(%S*)$')
  if sound(ancestor, now) and sound(head, now) and sound(before, now) and sound(mark, now) then
    -- Earlier versions wrote no `next`.
    stream.fork = { ancestor = ancestor, head = head, before = before, mark = mark, next = sound(next, now) or mark }
  end
  return stream
end

-- A stream's position, for reads: an unused stream has none, and is not given one.
local function look(events, meta, now, home)
  return known_position(events, meta, now, home)
    or { key = events, meta = meta, now = now, last = newest_kept(events, now), epoch = '0-0' }
end

-- A stream's position; a birth if it has none, so that a flush is seen by a reader that waits on an empty
-- stream. `position` is how long it lasts, in milliseconds.
local function open(events, meta, now, step, position, home)
  local stream = known_position(events, meta, now, home)
  if stream then return stream end
  -- Events without a position are left when only the one key was deleted. XADD would refuse
  -- ids below theirs until they expire.
  local epoch = next_id(newest_kept(events, now), now, step)
  redis.call('HSET', meta, 'last', epoch, 'epoch', epoch)
  redis.call('PEXPIRE', meta, position)
  return { key = events, meta = meta, now = now, last = epoch, epoch = epoch }
end

-- Up to where events were sent to nodes, '' when none ever was. All routes that there are were there for every event so
-- far: a publish removes those that lapsed, and the removal of one writes down where the stream was then.
local function told(stream, nodes)
  if redis.call('EXISTS', nodes) == 1 then
    return stream.last
  end
  return sound(redis.call('HGET', stream.meta, 'told'), stream.now) or ''
end

-- What a node's channel carries for an event; '' stands for what it has not.
local function message(stream, id, prev, kind, expires, group, excluded, trace, attributes, data)
  local header = stream .. ' ' .. id .. ' ' .. prev .. ' ' .. (kind == '' and 'message' or kind)
  if expires ~= '' then
    header = header .. ' x=' .. expires
  end
  if group ~= '' then
    header = header .. ' c=' .. group
  end
  if excluded ~= '' then
    header = header .. ' e=' .. excluded
  end
  if trace ~= '' then
    header = header .. ' w=' .. trace
  end
  if attributes ~= '' then
    header = header .. ' a=' .. attributes
  end
  return header .. '\n' .. data
end
