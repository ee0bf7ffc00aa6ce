#!lua flags=allow-oom
-- Takes away a dead node's members of a topic, and publishes who left with it.
--
-- KEYS  1 members, 2 roster, 3 nodes
-- ARGV  1 topic, 2 node, 3 what channels begin with, 4 the device to go on after or '', 5 devices to look at
-- Answer: the last device that was looked at, or '' at the end.
local now, dead = clock(), ARGV[2]
local live = live_routes(KEYS[3], now)
live[dead] = nil
local limit = tonumber(ARGV[5])
local devices = devices_after(KEYS[2], ARGV[4], limit)
local notices = {}
for _, device in ipairs(devices) do
  local member = member_of(redis.call('HGET', KEYS[1], device))
  if member.nodes[dead] then
    member.nodes[dead] = nil
    if connections_of(member, live) == 0 then
      member.nodes = {}
      notices[#notices + 1] = 'left ' .. device .. ' ' .. member.info
    end
    keep_member(KEYS[1], KEYS[2], device, member)
  end
end
notify_nodes(ARGV[1], ARGV[3], live, now, notices)
return #devices == limit and devices[limit] or ''
