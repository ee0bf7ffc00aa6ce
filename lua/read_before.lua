#!lua flags=allow-oom
-- Reads the newest events before an id; the answer holds them newest first.
--
-- KEYS  1 events, 2 meta, 3 collapse
-- ARGV  1 the id, 2 events in a page, 3 bytes in a page, 4 home version or ''
local now = clock()
local stream = look(KEYS[1], KEYS[2], now, ARGV[4])
stream.collapse = KEYS[3]
-- XREVRANGE refuses to end before the least id there is.
if ARGV[1] == '0-0' then
  return answer(stream, ARGV[1], {}, false, now)
end
local limit, max_bytes = tonumber(ARGV[2]), tonumber(ARGV[3])
local start = sound(ARGV[1], now) and '(' .. ARGV[1] or newest_possible(now)
local entries, more = collect(stream, 'XREVRANGE', start, '-', limit, max_bytes, now)
local oldest = entries[#entries]
return answer(stream, oldest and field(oldest, 'p') or ARGV[1], entries, more, now)
