#!lua flags=allow-oom
-- Gives up a stream that another region has as its home too, as of the same version: the directory had forgotten that
-- it is here, and gave it away. From here on whoever means it is sent there; what is here is still to be added there.
--
-- KEYS  1 nodes, 2 meta
-- ARGV  1 version of the home here, 2 the region that has it, 3 stream, 4 what channels begin with
-- Answer: whether there is something to be added there.
local known = redis.call('HGET', KEYS[2], 'home')
local version, sign, region, rest = home_of(known)
if version ~= tonumber(ARGV[1]) or sign == '<' then
  return 0
end
if sign == '' and region ~= '' then
  return (region == ARGV[2] and string.match(rest, '^merging ')) and 1 or 0
end
local last = redis.call('HGET', KEYS[2], 'last')
if last and redis.call('EXISTS', KEYS[1]) == 1 then
  -- See told(): nobody is told of anything here any more.
  redis.call('HSET', KEYS[2], 'told', last)
end
redis.call('HSET', KEYS[2], 'home', whole(version) .. ' ' .. ARGV[2] .. ' merging 0-0')
-- It has to be here until all is there.
redis.call('PERSIST', KEYS[2])
for node in pairs(live_routes(KEYS[1], clock())) do
  redis.pcall('PUBLISH', ARGV[4] .. node, '!moved ' .. ARGV[3])
end
return 1
