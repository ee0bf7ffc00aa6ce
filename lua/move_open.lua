#!lua flags=allow-oom
-- Opens a stream in its new home, once all that was sealed is here.
--
-- KEYS  1 events, 2 meta, 3 collapse
-- ARGV  1 version, 2 the region that was its home, 3 ms the log lives, 4 ms the position lives, 5 the newest entry
--       there or '', 6 number of words of meta, then those, then those of collapse
-- Answer: 'open', also if it was; 'behind' and up to which entry all is copied; or 'refused'.
local version, sign, region, rest = home_of(redis.call('HGET', KEYS[2], 'home'))
if version == tonumber(ARGV[1]) and (sign == '>' or region == '') then
  return { 'open', '' }
end
if version ~= tonumber(ARGV[1]) or sign ~= '<' or region ~= ARGV[2] then
  return { 'refused', '' }
end
local copied = string.match(rest, ' (.*)$') or ''
if copied ~= ARGV[5] then
  return { 'behind', copied }
end
local drained = true
local words = tonumber(ARGV[6])
for at = 7, 6 + words, 2 do
  redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
  drained = drained and ARGV[at] ~= 'ingress'
end
for at = 7 + words, #ARGV, 2 do
  redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 1])
end
redis.call('PEXPIRE', KEYS[3], ARGV[3])
redis.call('HSET', KEYS[2], 'home', whole(version))
if drained then
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
else
  -- As with the mark's first home: the removal of the entry lets it expire again.
  redis.call('PERSIST', KEYS[2])
end
return { 'open', '' }
