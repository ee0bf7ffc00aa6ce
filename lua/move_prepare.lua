#!lua flags=allow-oom
-- Makes room for a stream that is to have its home here. What is here of an earlier time is thrown away.
--
-- KEYS  1 events, 2 meta, 3 nodes, 4 collapse, 5 connections
-- ARGV  1 version, 2 the region that is its home, 3 ms until the deadline, 4 ms after which what nobody completes
--       is gone
-- Answer: 'ready' and up to which entry all is copied; or 'open' if this is its home already, or 'superseded'.
local version, sign, region, rest = home_of(redis.call('HGET', KEYS[2], 'home'))
local wanted, copied = tonumber(ARGV[1]), ''
if version and version > wanted then
  return { 'superseded', '' }
elseif version == wanted and sign ~= '<' then
  return { (sign == '>' or region == '') and 'open' or 'superseded', '' }
elseif version == wanted then
  copied = string.match(rest, ' (.*)$') or ''
else
  redis.call('UNLINK', unpack(KEYS))
end
write_arrival(KEYS[2], wanted, ARGV[2], ARGV[3], copied)
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return { 'ready', copied }
