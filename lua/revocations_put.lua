#!lua flags=allow-oom
-- Adds revocations, lifts those that are lifted, and forgets those whose time is over. A store that is full takes
-- them too: they are few, and keep somebody out.
--
-- KEYS  1 revocations
-- ARGV  1 the next version, 2 most revocations, then for each: id, expiry in milliseconds, whether it is lifted, body
-- Answer: whether there was room.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000
local known, count, latest = {}, 0, 0
local all = redis.call('HGETALL', KEYS[1])
for at = 1, #all, 2 do
  local id, expiry, lifted = all[at], string.match(all[at + 1], '^(%d+) (%d) ')
  if id ~= 'version' then
    if tonumber(expiry) <= now then
      redis.call('HDEL', KEYS[1], id)
    else
      known[id] = lifted
      count = count + 1
      latest = math.max(latest, tonumber(expiry))
    end
  end
end
for at = 3, #ARGV, 4 do
  if not known[ARGV[at]] and tonumber(ARGV[at + 1]) > now then
    count = count + 1
  end
end
if count > tonumber(ARGV[2]) then
  return 0
end
for at = 3, #ARGV, 4 do
  local id, expiry, lifted, body = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if tonumber(expiry) > now and (not known[id] or (known[id] == '0' and lifted == '1')) then
    redis.call('HSET', KEYS[1], id, expiry .. ' ' .. lifted .. ' ' .. body)
    latest = math.max(latest, tonumber(expiry))
  end
end
redis.call('HSET', KEYS[1], 'version', ARGV[1])
-- Some time later than the last of them, or the version would be gone while somebody holds it.
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', math.max(latest, now) + 60000))
return 1
