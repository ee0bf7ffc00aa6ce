#!lua flags=allow-oom
-- Sets how many connections of devices a node has in a topic, and publishes joins and leaves.
--
-- KEYS  1 members, 2 roster, 3 nodes, 4 meta
-- ARGV  1 topic, 2 node, 3 what channels begin with, 4 home version or '', then of each device its name, its
--       connections and its info or ''
-- Answer: 1, or 0: the node has no route to the topic, so nobody joins through it.
require_home(KEYS[4], ARGV[4])
local now, own = clock(), ARGV[2]
local live = live_routes(KEYS[3], now)
local routed = live[own]
-- What it has counts until it sets something else, also when its route lapsed before.
local counted = { [own] = true }
for node in pairs(live) do counted[node] = true end
local notices = {}
for at = 5, #ARGV, 3 do
  local device, count, info = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  if routed or count == 0 then
    local member = member_of(redis.call('HGET', KEYS[1], device))
    local before = connections_of(member, counted)
    member.nodes[own] = count > 0 and count or nil
    if count > 0 and info ~= '' then member.info = info end
    if before == 0 then
      member.since = whole(now)
      member.nodes = { [own] = member.nodes[own] }
    end
    keep_member(KEYS[1], KEYS[2], device, member)
    local after = connections_of(member, counted)
    if before == 0 and after > 0 then
      notices[#notices + 1] = 'joined ' .. device .. ' ' .. member.info
    elseif before > 0 and after == 0 then
      notices[#notices + 1] = 'left ' .. device .. ' ' .. member.info
    end
  end
end
notify_nodes(ARGV[1], ARGV[3], live, now, notices)
return routed and 1 or 0
