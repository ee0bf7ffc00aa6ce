#!lua
-- Takes over a part of a stream from another store: where nobody used the stream, or right behind the part before.
--
-- KEYS  1 events, 2 meta, 3 collapse
-- ARGV  1 the position behind which it belongs, or '', 2 epoch, 3 where the stream stands then, 4 acknowledged or '',
--       5 erased or '', 6 events kept, 7 ms the log lives, 8 ms the position lives, 9 home version or '', then each
--       event: id, number of words, words as in the log
-- Answer: 'taken'; 'known' if it is a part of what is there; or where the stream stands, in another history or place.
--
-- No allow-oom: a store without room refuses before anything is written.
local events, meta, collapse = KEYS[1], KEYS[2], KEYS[3]
local now = clock()
local stream = known_position(events, meta, now, ARGV[9])
if stream then
  if stream.epoch ~= ARGV[2] then
    return stream.last
  end
  if not above(ARGV[3], stream.last) then
    return 'known'
  end
end
if (stream and stream.last or '') ~= ARGV[1] then
  return stream and stream.last or '0-0'
end
if not stream and redis.call('EXISTS', events) == 1 then
  return newest_kept(events, now)
end
local at = 10
while ARGV[at] do
  local entry = {}
  for index = at + 2, at + 1 + tonumber(ARGV[at + 1]) do
    entry[#entry + 1] = ARGV[index]
  end
  redis.call('XADD', events, 'MAXLEN', '~', ARGV[6], ARGV[at], unpack(entry))
  for index = 1, #entry, 2 do
    if entry[index] == 'c' then
      redis.call('HSET', collapse, entry[index + 1], ARGV[at])
    end
  end
  at = at + 2 + #entry
end
local kept = whole(now + tonumber(ARGV[7]))
redis.call('HSET', meta, 'last', ARGV[3], 'epoch', ARGV[2], 'kept', kept)
for index, name in pairs({ [4] = 'acked', [5] = 'erased' }) do
  if ARGV[index] ~= '' then
    redis.call('HSET', meta, name, ARGV[index])
  end
end
redis.call('PEXPIRE', meta, ARGV[8])
redis.call('PEXPIREAT', events, kept)
redis.call('PEXPIREAT', collapse, kept)
return 'taken'
