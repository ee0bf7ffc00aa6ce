#!lua flags=allow-oom
-- Asserts a node's route, then reads what is newer than its head.
--
-- KEYS  1 events, 2 nodes, 3 meta, 4 collapse, 5 connections
-- ARGV  1 node, 2 registration, 3 ms the route holds, 4 head or '', 5 step, 6 ms the position lives,
--       7 events in a page, 8 bytes in a page, 9 home version or '', 10 the tag of the node's sharded channel at this
--       master or ''
--
-- allow-oom: a full store refuses publishes, but connections stay.
local now = clock()
local stream = open(KEYS[1], KEYS[3], now, tonumber(ARGV[5]), ARGV[6], ARGV[9])
stream.collapse = KEYS[4]
-- Followed streams keep their position: without this, one that is silent for longer than the position's
-- time would look flushed to devices that were connected all along.
redis.call('PEXPIRE', KEYS[3], ARGV[6])
redis.call('PEXPIRE', KEYS[5], ARGV[6])
local route = string.format('%.0f %s', now + tonumber(ARGV[3]), ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[10] == '' and route or route .. ' ' .. ARGV[10])
-- Not only as long as its routes: one that lapsed shows up to where its node was sent events, see told().
redis.call('PEXPIRE', KEYS[2], ARGV[6])
if ARGV[4] == '' then
  return answer(stream, stream.last, {}, false, now)
end
return page_after(stream, ARGV[4], tonumber(ARGV[7]), tonumber(ARGV[8]), now)
