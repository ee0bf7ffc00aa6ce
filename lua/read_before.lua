#!lua flags=allow-oom
-- Reads the newest events before an id; the answer holds them newest first.
--
-- KEYS  1 events, 2 meta, 3 collapse
-- ARGV  1 the id, 2 step, 3 ms the position lives, 4 events in a page, 5 bytes in a page,
--       6 home version or ''
local now = clock()
local stream = open(KEYS[1], KEYS[2], now, tonumber(ARGV[2]), ARGV[3], ARGV[6])
stream.collapse = KEYS[3]
-- XREVRANGE refuses to end before the least id there is.
if ARGV[1] == '0-0' then
  return answer(stream, ARGV[1], {}, false, now)
end
local limit, max_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local entries, more = collect(stream, 'XREVRANGE', '(' .. ARGV[1], '-', limit, max_bytes, now)
local oldest = entries[#entries]
return answer(stream, oldest and field(oldest, 'p') or ARGV[1], entries, more, now)
