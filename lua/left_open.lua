#!lua flags=allow-oom
-- What a node has open.
--
-- KEYS  1 meta, 2 sessions, 3 what the node has open
-- ARGV  1 node, 2 most connections, 3 'end' ends its session, so that it can tell nothing more, 4 if it has its lease in
--       this region, 5 home version or ''
-- Answer: connections, each followed by what is remembered of it.
require_home(KEYS[1], ARGV[5])
if ARGV[3] == 'end' then
  local known = redis.call('HGET', KEYS[2], ARGV[1]) or ''
  local state, number, region = string.match(known, '^(%S+) (%d+) %d+ (%S+)')
  if region ~= (ARGV[4] == '' and '-' or ARGV[4]) then
    return {}
  end
  if state == 'open' then
    redis.call('HSET', KEYS[2], ARGV[1], table.concat({ 'over', number, whole(clock()), region }, ' '))
  end
end
return redis.call('HRANDFIELD', KEYS[3], ARGV[2], 'WITHVALUES')
