#!lua flags=allow-oom
-- What is known of a sealed stream beside its entries.
--
-- KEYS  1 events, 2 meta, 3 collapse
-- ARGV  1 version of the next home, 2 the region it is
-- Answer: 'marks', the newest entry or '', meta without the home and how long the log lives, collapse; or only 'superseded'.
local known = redis.call('HGETALL', KEYS[2])
local marks, home = {}, nil
for at = 1, #known, 2 do
  if known[at] == 'home' then
    home = known[at + 1]
  elseif known[at] ~= 'kept' and known[at] ~= 'via' then
    -- Those go by this clock: for how long this log lives, and since when the device comes through which region.
    marks[#marks + 1] = known[at]
    marks[#marks + 1] = known[at + 1]
  end
end
local version, sign, region, rest = home_of(home)
if version ~= tonumber(ARGV[1]) or sign ~= '' or region ~= ARGV[2] or rest ~= 'unfinished' then
  return { 'superseded' }
end
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
return { 'marks', newest and newest[1] or '', marks, redis.call('HGETALL', KEYS[3]) }
