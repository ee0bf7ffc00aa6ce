#!lua flags=allow-cross-slot-keys
-- Publishes connects and disconnects on the lifecycle topic, each once.
--
-- KEYS  1 to 5 those of publish.lua, 6 sessions, 7 what the node has open
-- ARGV  1 node, 2 number of its batch, or '' from the node that cleans up after it, 3 changes, then for each of them
--       'connected', 'disconnected' or 'renewed' (only what to remember changed), the connection, what to remember of
--       it, and the event's data; behind them
--       what publish.lua takes, into which type and data are put here
-- Answer: 'published', 'over' (the node's session: nothing was done) or 'behind' (batches before this one are missing, and
--         nothing was done); the number of the batch published last.
--
-- What decides stands beside the stream, in its slot, and changes in one step with it. A batch that is repeated,
-- however late, is recognised by its number. One that a survivor publishes for a node that others clean up after, too, is
-- known by what is open.
local sessions, held = KEYS[6], KEYS[7]
local number, count = tonumber(ARGV[2]), tonumber(ARGV[3])
local keys, arguments = { unpack(KEYS, 1, 5) }, { unpack(ARGV, 4 + 4 * count) }
require_home(KEYS[3], arguments[14])
local region
if number then
  local state, published
  state, published, region = string.match(redis.call('HGET', sessions, ARGV[1]) or '', '^(%S+) (%d+) %d+ (%S+)')
  published = tonumber(published) or 0
  if state ~= 'open' then
    return { 'over', published }
  elseif number <= published then
    return { 'published', published }
  elseif number > published + 1 then
    return { 'behind', published }
  end
end
for at = 4, 3 + 4 * count, 4 do
  local kind, connection, whose, data = unpack(ARGV, at, at + 3)
  local known = redis.call('HEXISTS', held, connection) == 1
  if kind == 'renewed' then
    if known then redis.call('HSET', held, connection, whose) end
  elseif known ~= (kind == 'connected') then
    arguments[2], arguments[3] = data, kind
    if publish(keys, arguments)[3] ~= 0 then
      return redis.error_reply('LIFECYCLE the stream does not take the event')
    end
    if known then
      redis.call('HDEL', held, connection)
    else
      redis.call('HSET', held, connection, whose)
    end
  end
end
if not number then
  return { 'published', 0 }
end
if count == 0 then
  return { 'published', number - 1 }
end
redis.call('HSET', sessions, ARGV[1], 'open ' .. ARGV[2] .. ' ' .. whole(clock()) .. ' ' .. region)
return { 'published', number }
