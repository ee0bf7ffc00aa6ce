#!lua flags=allow-oom
-- The connections of a device, and the state of its inbox.
--
-- KEYS  1 connections, 2 nodes, 3 meta
-- ARGV  1 home version or ''
-- Answer: last or '', then for each connection its id, stamp, since, node, transport, and what is shown beside it or ''.
require_home(KEYS[3], ARGV[1])
local live = live_routes(KEYS[2], clock())
local answer = { sound(redis.call('HGET', KEYS[3], 'last'), clock()) or '' }
local held = redis.call('HGETALL', KEYS[1])
for at = 1, #held, 2 do
  local entry = slot_entry(held[at], held[at + 1])
  if entry and live[entry.node] then
    answer[#answer + 1] = { held[at], whole(entry.stamp), entry.since, entry.node, entry.transport, entry.info }
  end
end
return answer
