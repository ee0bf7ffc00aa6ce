#!lua flags=allow-oom
-- Nodes of a region whose sessions were not ended.
--
-- KEYS  1 meta, 2 sessions
-- ARGV  1 region, 2 home version or ''
require_home(KEYS[1], ARGV[2])
local answer = {}
local known = redis.call('HGETALL', KEYS[2])
for at = 1, #known, 2 do
  local state, region = string.match(known[at + 1], '^(%S+) %d+ %d+ (%S+)')
  if state == 'open' and region == (ARGV[1] == '' and '-' or ARGV[1]) then
    answer[#answer + 1] = known[at]
  end
end
return answer
