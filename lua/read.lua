#!lua flags=allow-oom
-- Reads a page of a stream's log.
--
-- KEYS  1 events, 2 meta, 3 collapse
-- ARGV  1 'after', 'earliest', 'since', 'from' (an entry, itself included) or 'last' (nothing), 2 the id or the time, 3 events in a page,
--       4 bytes in a page, 5 home version or ''
local now = clock()
local stream = look(KEYS[1], KEYS[2], now, ARGV[5])
stream.collapse = KEYS[3]
local limit, max_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])

if ARGV[1] == 'after' then
  return page_after(stream, ARGV[2], limit, max_bytes, now)
end

local start = '-'
if ARGV[1] == 'since' then
  start = ARGV[2]
elseif ARGV[1] == 'from' then
  start = ARGV[2]
elseif ARGV[1] == 'last' then
  return answer(stream, stream.last, {}, false, now)
end

local entries, more = collect(stream, 'XRANGE', start, newest_possible(now), limit, max_bytes, now)
-- The position before the first event wanted, so that the chain holds from the first one on.
local from = entries[1] and field(entries[1], 'p') or stream.last
return answer(stream, from, entries, more, now)
