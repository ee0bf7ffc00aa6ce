#!lua flags=allow-oom
-- The members of a topic, by name.
--
-- KEYS  1 members, 2 roster, 3 nodes, 4 meta
-- ARGV  1 home version or '', 2 the device to go on after or '', 3 devices to look at
-- Answer: the device to go on after or '', then of each member its name, info or '', connections and since when.
require_home(KEYS[4], ARGV[1])
local live = live_routes(KEYS[3], clock())
local limit = tonumber(ARGV[3])
local devices = devices_after(KEYS[2], ARGV[2], limit + 1)
local answer = { #devices > limit and devices[limit] or '' }
for at = 1, math.min(#devices, limit) do
  local member = member_of(redis.call('HGET', KEYS[1], devices[at]))
  local count = connections_of(member, live)
  if count > 0 then
    answer[#answer + 1] = { devices[at], member.info, whole(count), member.since }
  end
end
return answer
