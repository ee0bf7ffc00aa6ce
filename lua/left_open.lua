#!lua flags=allow-oom
-- Ends a node's session, so that it can publish nothing more, and gives some of what it has open.
--
-- KEYS  1 meta, 2 sessions, 3 what the node has open
-- ARGV  1 node, 2 most connections, 3 nothing is done unless the node has its lease in this region, 4 home version or ''
-- Answer: connections, each followed by what is remembered of it.
require_home(KEYS[1], ARGV[4])
local known = redis.call('HGET', KEYS[2], ARGV[1]) or ''
local state, number, region = string.match(known, '^(%S+) (%d+) %d+ (%S+)')
if region ~= (ARGV[3] == '' and '-' or ARGV[3]) then
  return {}
end
if state == 'open' then
  redis.call('HSET', KEYS[2], ARGV[1], table.concat({ 'over', number, whole(clock()), region }, ' '))
end
return redis.call('HRANDFIELD', KEYS[3], ARGV[2], 'WITHVALUES')
