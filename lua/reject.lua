#!lua flags=allow-oom
-- Writes down ingress entries that can't be events, each once, and why.
--
-- KEYS  1 rejected, 2 ids of the entries that were written down last
-- ARGV  1 how many are kept, 2 how many ids are remembered, 3 ms that they are,
--       4… of each entry: id, reason, count of the words that follow, its names and values
--
-- allow-oom: each of them makes room in the ingress stream, and old ones go.
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local at = 4
while at <= #ARGV do
  local id, reason, words = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  if redis.call('ZADD', KEYS[2], 'NX', now, id) == 1 then
    -- Ours come last: clients that make a dictionary of the fields keep the last of a name.
    local entry = { unpack(ARGV, at + 3, at + 2 + words) }
    entry[#entry + 1] = 'entry'
    entry[#entry + 1] = id
    entry[#entry + 1] = 'reason'
    entry[#entry + 1] = reason
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(entry))
  end
  at = at + 3 + words
end
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - tonumber(ARGV[2]))
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
