#!lua
-- Adds entries to a stream that is to have its home here, right behind those that were added before.
--
-- KEYS  1 events, 2 meta, 3… once, of idempotency keys
-- ARGV  1 version, 2 the region that is its home, 3 ms until the deadline, 4 ms the log lives, 5 up to which entry
--       all is copied, 6 whether that is to be thrown away first, 7 the clock there, then of each key what is
--       remembered and ms, then each entry: id, number of words, words
-- Answer: 'ready' and up to which entry all is copied now; or 'refused': nobody prepared for it, or it is over.
local version, sign, region, rest = home_of(redis.call('HGET', KEYS[2], 'home'))
if version ~= tonumber(ARGV[1]) or sign ~= '<' or region ~= ARGV[2] then
  return { 'refused', '' }
end
local copied = string.match(rest, ' (.*)$') or ''
if copied ~= ARGV[5] then
  -- Somebody else was faster.
  return { 'ready', copied }
end
if ARGV[6] == '1' then
  redis.call('UNLINK', KEYS[1])
  copied = ''
end
local at = 8
for index = 3, #KEYS do
  if ARGV[at] ~= '' and tonumber(ARGV[at + 1]) > 0 then
    redis.call('SET', KEYS[index], ARGV[at], 'PX', ARGV[at + 1])
  end
  at = at + 2
end
-- Times go by the home's clock, and this one may be another by minutes.
local shift = clock() - tonumber(ARGV[7])
while ARGV[at] do
  local id, words, entry = ARGV[at], tonumber(ARGV[at + 1]), {}
  for index = at + 2, at + 1 + words do
    entry[#entry + 1] = ARGV[index]
  end
  for index = 1, #entry, 2 do
    if entry[index] == 'x' and tonumber(entry[index + 1]) then
      entry[index + 1] = whole(math.max(tonumber(entry[index + 1]) + shift, 1))
    end
  end
  redis.call('XADD', KEYS[1], id, unpack(entry))
  copied = id
  at = at + 2 + words
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
write_arrival(KEYS[2], version, region, ARGV[3], copied)
return { 'ready', copied }
