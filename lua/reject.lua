#!lua flags=allow-oom
-- Writes down ingress entries that can't be events, each once, and why.
--
-- KEYS  1 rejected
-- ARGV  1 how many are kept, 2 how many of the newest to look through for those that are there already,
--       3… of each entry: id, reason, count of the words that follow, its names and values
--
-- allow-oom: each of them makes room in the ingress stream, and old ones go.
local known = {}
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', ARGV[2])) do
  local fields = entry[2]
  for at = 1, #fields, 2 do
    if fields[at] == 'entry' then known[fields[at + 1]] = true end
  end
end
local at = 3
while at <= #ARGV do
  local id, reason, words = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  if not known[id] then
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
return 1
