#!lua flags=allow-oom
-- Reads entries of a stream that is being moved away, as they are.
--
-- KEYS  1 events, 2 meta
-- ARGV  1 version that the next home will have, 2 the region it will be, 3 ms until the deadline, 4 the entry to
--       read after or '', 5 entries in a page, 6 bytes in a page
-- Answer: 'read', whether it was read from the first entry on instead, whether there is more, the clock, the
--         entries; or only 'superseded'.
local version, sign, region, rest = home_of(redis.call('HGET', KEYS[2], 'home'))
local now, next_version = clock(), tonumber(ARGV[1])
if version == next_version - 1 and sign == '>' and region == ARGV[2] then
  redis.call('HSET', KEYS[2], 'home', whole(version) .. ' >' .. region .. ' ' .. whole(now + tonumber(ARGV[3])))
elseif not (version == next_version and sign == '' and region == ARGV[2] and rest == 'unfinished') then
  return { 'superseded' }
end
-- What was copied is not here any more: trimmed, erased, or lost by a failover. Then nothing of it counts.
local from, anew = ARGV[4], 0
if from ~= '' and #redis.call('XRANGE', KEYS[1], from, from) == 0 then
  from, anew = '', 1
end
local limit, max_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local entries, bytes, start = {}, 0, from == '' and '-' or '(' .. from
while true do
  local wanted = math.min(CHUNK, limit - #entries + 1)
  local chunk = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', wanted)
  for _, entry in ipairs(chunk) do
    if #entries >= limit or bytes >= max_bytes then
      return { 'read', anew, 1, whole(now), entries }
    end
    entries[#entries + 1] = entry
    bytes = bytes + #(field(entry, 'd') or '')
  end
  if #chunk < wanted then
    return { 'read', anew, 0, whole(now), entries }
  end
  start = '(' .. entries[#entries][1]
end
