#!lua flags=allow-oom
-- Walks from the end of a stream's log towards its beginning: a Redis stream can't be entered at the n-th entry from
-- its end. Some entries at a time, as each of them may be large.
--
-- KEYS  1 events, 2 meta
-- ARGV  1 the id before which to go on, or '' to begin at the end, 2 entries to walk over, 3 bytes after which to stop,
--       4 home version or ''
-- Answer: entries walked over, the oldest of them or '', whether the beginning was reached.
require_home(KEYS[2], ARGV[4])
local wanted, room, walked = tonumber(ARGV[2]), tonumber(ARGV[3]), 0
local oldest, step, size = '', 2, 0
local bound = ARGV[1] == '' and newest_possible(clock()) or '(' .. ARGV[1]
while walked < wanted and room > 0 do
  local count = math.min(step, wanted - walked)
  local chunk = redis.call('XREVRANGE', KEYS[1], bound, '-', 'COUNT', count)
  for _, entry in ipairs(chunk) do
    oldest = entry[1]
    size = size + #(field(entry, 'd') or '')
  end
  walked = walked + #chunk
  room = tonumber(ARGV[3]) - size
  -- As many as there is room for, going by those so far.
  step = math.max(1, math.min(CHUNK, math.floor(room * walked / math.max(size, 1))))
  if #chunk < count then
    return { walked, oldest, 1 }
  end
  bound = '(' .. oldest
end
return { walked, oldest, 0 }
