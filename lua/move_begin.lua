#!lua flags=allow-oom
-- Begins to move a stream away from here, or goes on with that: somebody is at it until a deadline, which is set
-- anew with all that they do.
--
-- KEYS  1 meta
-- ARGV  1 version that the next home will have, 2 the region it will be, 3 ms until the deadline
-- Answer: 'begun'; 'sealed' and 'finished' if it came as far as that; 'stalled REGION' if another move has to be
--         completed first; 'homeless' if nothing is known of a home here; 'superseded' if it is elsewhere, or
--         somebody is at another move.
local version, sign, region, rest = home_of(redis.call('HGET', KEYS[1], 'home'))
local next_version = tonumber(ARGV[1])
if not version or version < next_version - 1 then
  return 'homeless'
end
if version == next_version and sign == '' and region ~= '' then
  if region ~= ARGV[2] then
    return 'stalled ' .. region
  end
  return rest == 'unfinished' and 'sealed' or 'finished'
end
if version ~= next_version - 1 or sign == '<' or (sign == '' and region ~= '') then
  return 'superseded'
end
if sign == '>' and region ~= ARGV[2] then
  return lapsed(rest) and 'stalled ' .. region or 'superseded'
end
redis.call('HSET', KEYS[1], 'home', whole(version) .. ' >' .. ARGV[2] .. ' ' .. whole(clock() + tonumber(ARGV[3])))
return 'begun'
