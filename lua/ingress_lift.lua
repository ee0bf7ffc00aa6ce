#!lua flags=allow-oom
-- Puts an ingress stream that began anew, or lost its end, above an id that was already taken from it.
--
-- A failover to a clock that is behind may give ids below those of entries that are done. Their targets would
-- refuse what has such an id, as if it were done too. So all that waits is added once more, above: some entries at a
-- time, as there may be very many. Until none is left below, the id stands in a key of its own, and the node that drains
-- then goes on with it before anything else.
--
-- KEYS  1 ingress, 2 the id up to which entries are added once more
-- ARGV  1 the id, or '' to go on with one that was begun, 2 entries and 3 bytes that are added once more now
-- Answer: 'done' when nothing is below, also if nothing was; 'more' when some may be.
local key, lifting = KEYS[1], KEYS[2]
local mark = redis.call('GET', lifting)
if ARGV[1] ~= '' and above(ARGV[1], mark or newest_given(key)) then
  mark = ARGV[1]
  redis.call('SET', lifting, mark)
end
if not mark then
  return 'done'
end
local last = newest_given(key)
if last == '0-0' then
  -- XSETID wants a stream that is there.
  redis.call('XADD', key, mark, 'raised', '')
  redis.call('XDEL', key, mark)
elseif above(mark, last) then
  redis.call('XSETID', key, mark)
end
local most, room = tonumber(ARGV[2]), tonumber(ARGV[3])
while most > 0 and room > 0 do
  local wanted = math.min(CHUNK, most)
  local entries = redis.call('XRANGE', key, '-', mark, 'COUNT', wanted)
  for _, entry in ipairs(entries) do
    -- An entry has a dozen words. Of one with thousands, which is refused anyway, some are enough.
    redis.call('XADD', key, '*', unpack(entry[2], 1, math.min(#entry[2], 1000)))
    redis.call('XDEL', key, entry[1])
    for _, word in ipairs(entry[2]) do
      room = room - #word
    end
  end
  if #entries < wanted then
    redis.call('DEL', lifting)
    return 'done'
  end
  most = most - wanted
end
return 'more'
