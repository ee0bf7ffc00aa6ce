-- What the scripts share that read a stream's log. It is put behind stream.lua.

-- The largest id there is. XRANGE refuses to begin after it.
local MAX_ID = '18446744073709551615-18446744073709551615'

-- Entries per XRANGE of a page, so that a page that ends early on its bytes has not pulled all of its
-- entries into the interpreter.
local CHUNK = 16

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

-- Whether a reader at `id` stands in this history. It need not be an event: a log that expired left
-- `last` behind, and a reader with the gap of a fork waits at its mark.
local function knows(stream, id)
  local fork = stream.fork
  if stream.last == id or (fork and (fork.mark == id or fork.before == id)) then
    return true
  end
  local next = redis.call('XRANGE', stream.key, id, '+', 'COUNT', 1)[1]
  return next ~= nil and (next[1] == id or field(next, 'p') == id)
end

-- The answer of every read: a line of words, empty for none, and the entries. One line, as most answers are those of
-- syncs of silent streams, and a dozen values would be dearer to write and to read than the words of one.
local function answer(stream, from, entries, more, now)
  local fork = stream.fork
  local first = redis.call('XRANGE', stream.key, '-', newest_possible(now), 'COUNT', 1)[1]
  local words = {
    from, stream.last, stream.epoch, whole(now), more and 'more' or '', first and first[1] or '', stream.erased or '',
    fork and fork.ancestor or '', fork and fork.head or '', fork and fork.before or '', fork and fork.mark or '',
    fork and fork.next or '', stream.kick or '',
  }
  return { table.concat(words, ' '), entries }
end

-- An entry as readers are to have it: one that expired has lost its data and has 0 for its time, and one
-- whose collapse key came up again has a field `s`. Then the bytes of what its producer handed in.
local function as_read(stream, entry, now)
  local fields, expires, group, prev, bytes = entry[2], nil, nil, nil, 0
  for at = 1, #fields, 2 do
    local name = fields[at]
    if name == 'd' or name == 'a' then
      bytes = bytes + #fields[at + 1]
    elseif name == 'x' then
      expires = tonumber(fields[at + 1])
    elseif name == 'c' then
      group = fields[at + 1]
    elseif name == 'p' then
      prev = fields[at + 1]
    end
  end
  if expires and expires <= now then
    return { entry[1], { 'p', prev or '', 'x', '0' } }, 0
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
  return entry, bytes
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
  -- The store's entries of collapse keys, to be asked once for each.
  stream.newest = {}
  while true do
    -- As many as there is room for, going by those so far.
    local likely = #entries == 0 and 4 or math.floor((max_bytes - bytes) * #entries / math.max(bytes, 1)) + 1
    local wanted = math.max(1, math.min(CHUNK, likely, limit - #entries + 1))
    local chunk = redis.call(command, stream.key, start, stop, 'COUNT', wanted)
    for _, entry in ipairs(chunk) do
      if #entries >= limit or bytes >= max_bytes then
        return entries, true
      end
      local read, size = as_read(stream, entry, now)
      entries[#entries + 1] = read
      bytes = bytes + size
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
  local entries, more = collect(stream, 'XRANGE', '(' .. from, newest_possible(now), limit, max_bytes, now)
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
