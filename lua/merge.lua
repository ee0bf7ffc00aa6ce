#!lua flags=allow-oom
-- Reads what a stream that was given up still has to be added to its home; see cede.lua. What is there already is noted
-- first. Once nothing is left, all of it is thrown away, except where it went.
--
-- KEYS  1 meta, 2 events, 3 nodes, 4 collapse, 5 connections, 6 members, 7 roster
-- ARGV  1 version of the home here, 2 the region that has it, 3 up to which entry all is there, '' to begin,
--       4 entries in a page, 5 bytes in a page, 6 ms for which it is known here where it went
-- Answer: the clock, the entries; nothing if it is over.
local version, sign, region, rest = home_of(redis.call('HGET', KEYS[1], 'home'))
local merged = string.match(rest or '', '^merging (%d+%-%d+)$')
if version ~= tonumber(ARGV[1]) or sign ~= '' or region ~= ARGV[2] or not merged then
  return {}
end
if ARGV[3] ~= '' and above(ARGV[3], merged) then
  merged = ARGV[3]
  redis.call('HSET', KEYS[1], 'home', whole(version) .. ' ' .. region .. ' merging ' .. merged)
end
local now, limit, max_bytes = clock(), tonumber(ARGV[4]), tonumber(ARGV[5])
local entries, bytes, start = {}, 0, '(' .. merged
while #entries < limit and bytes < max_bytes do
  local wanted = math.min(CHUNK, limit - #entries)
  local chunk = redis.call('XRANGE', KEYS[2], start, newest_possible(now), 'COUNT', wanted)
  for _, entry in ipairs(chunk) do
    entries[#entries + 1] = entry
    bytes = bytes + #(field(entry, 'd') or '')
  end
  if #chunk < wanted then break end
  start = '(' .. entries[#entries][1]
end
if #entries > 0 then
  return { whole(now), entries }
end
redis.call('UNLINK', unpack(KEYS))
redis.call('HSET', KEYS[1], 'home', whole(version) .. ' ' .. region)
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return {}
