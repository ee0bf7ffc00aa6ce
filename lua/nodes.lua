#!lua flags=allow-oom
-- All nodes of the region that are not cleaned up after: name, when the lease ends, whether that is past.
--
-- KEYS  1 nodes of the region
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local listed = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local nodes = {}
for at = 1, #listed, 2 do
  local deadline = tonumber(listed[at + 1])
  -- Scores that are no times were written by nobody here.
  if deadline and deadline >= 0 and deadline < 2 ^ 53 then
    nodes[#nodes + 1] = { listed[at], string.format('%.0f', deadline), deadline <= now and 1 or 0 }
  end
end
return nodes
