#!lua flags=allow-oom
-- Puts an ingress stream that began anew, or lost its end, above an id that was already taken from it.
--
-- A failover to a clock that is behind may give ids below those of entries that are done. Their targets would
-- refuse what has such an id, as if it were done too. So all that waits is added once more, above.
--
-- KEYS  1 ingress
-- ARGV  1 the id, 2… entries that are done
-- Answer: whether the stream was below.
local key, mark = KEYS[1], ARGV[1]
local last = newest_given(key)
if not above(mark, last) then
  return 0
end
for at = 2, #ARGV do
  redis.call('XDEL', key, ARGV[at])
end
local entries = redis.call('XRANGE', key, '-', '+')
if last == '0-0' then
  -- XSETID wants a stream that is there.
  redis.call('XADD', key, mark, 'raised', '')
  redis.call('XDEL', key, mark)
else
  redis.call('XSETID', key, mark)
end
for _, entry in ipairs(entries) do
  -- An entry has a dozen words. Of one with thousands, which is refused anyway, some are enough.
  redis.call('XADD', key, '*', unpack(entry[2], 1, math.min(#entry[2], 1000)))
  redis.call('XDEL', key, entry[1])
end
return 1
