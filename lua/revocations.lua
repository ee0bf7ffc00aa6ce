#!lua
-- All revocations, unless they are still those of a version.
--
-- KEYS  1 revocations: id to `EXPIRY LIFTED BODY`, and `version` to what stands for them all
-- ARGV  1 the version that the caller has, or nothing
-- Answer: nothing if that is the version still; otherwise the version, then each body.
local version = redis.call('HGET', KEYS[1], 'version') or '0'
if version == ARGV[1] then
  return {}
end
local answer = {version}
local all = redis.call('HGETALL', KEYS[1])
for at = 1, #all, 2 do
  if all[at] ~= 'version' then
    answer[#answer + 1] = string.match(all[at + 1], '^%d+ %d (.*)$')
  end
end
return answer
