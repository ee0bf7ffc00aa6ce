#!lua flags=allow-oom
-- Reads entries that producers added to an ingress stream, oldest first.
--
-- KEYS  1 ingress, 2 the id up to which entries are being added once more, see ingress_lift.lua
-- ARGV  1 the id to read after, 2 entries in a page, 3 bytes in a page, 4 bytes of the largest entry wanted
-- Answer: the newest id ever given, entries that wait, id of the oldest or '', the clock, and the entries:
--         id, bytes, names and values (none of an entry that is too large); and whether
--         entries are being added once more.
local key, limit, max_bytes, largest = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = string.format('%.0f', clock())
local last = newest_given(key)
local oldest = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
local entries, bytes, start = {}, 0, '(' .. ARGV[1]
while #entries < limit and bytes < max_bytes do
  local wanted = math.min(CHUNK, limit - #entries)
  local chunk = redis.call('XRANGE', key, start, '+', 'COUNT', wanted)
  for _, entry in ipairs(chunk) do
    local size = 0
    for _, word in ipairs(entry[2]) do
      size = size + #word
    end
    local fits = size <= largest
    entries[#entries + 1] = { entry[1], size, fits and entry[2] or {} }
    bytes = bytes + (fits and size or 0)
  end
  if #chunk < wanted then break end
  start = '(' .. entries[#entries][1]
end
return { last, redis.call('XLEN', key), oldest and oldest[1] or '', now, entries, redis.call('EXISTS', KEYS[2]) }
