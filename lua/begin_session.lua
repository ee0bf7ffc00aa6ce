#!lua flags=allow-oom
-- A node's session begins: what it had open under the id before is open under this one from now on.
--
-- KEYS  1 events, 2 meta, 3 sessions, 4 what the node has open, 5 what it had under the id before (or the same)
-- ARGV  1 node, 2 the id before or '', 3 step, 4 ms the position lives, 5 ms for which ended sessions are remembered,
--       6 where the node has its lease, 7 home version or ''
-- Answer: what became of the session before: 'held' (it goes on), 'lost' (others ended it, and publish that its
--         connections were lost), 'moved' (to another id already: ask again with that one; nothing was done),
--         'unknown', or 'over' (others ended the session that was to begin: nothing was done); the number of the batch
--         published last in it; where it moved, or ''; and the stream's birth.
--
-- Sessions are 'STATE NUMBER SINCE REGION [TO]' by node: 'open', 'over' or 'moved'; of a region without a name the
-- hyphen stands. What ended is remembered for a while: the node may have slept, and ask.
local sessions, node, before = KEYS[3], ARGV[1], ARGV[2]
local now = clock()
local stream = open(KEYS[1], KEYS[2], now, tonumber(ARGV[3]), ARGV[4], ARGV[7])
local region = ARGV[6] == '' and '-' or ARGV[6]

local function session(of)
  local known = redis.call('HGET', sessions, of) or ''
  local state, number, since, to = string.match(known, '^(%S+) (%d+) (%d+) %S+ ?(%S*)$')
  return state, tonumber(number) or 0, to, tonumber(since)
end

local function answer(outcome, number, to)
  return { outcome, number, to or '', stream.epoch }
end

local own, own_number = session(node)
if own and own ~= 'open' then
  return answer('over', own_number)
end
if before == node and own then
  return answer('held', own_number)
end
local state, number, to = nil, 0, nil
if before ~= '' and before ~= node then
  state, number, to = session(before)
end
if state == 'moved' and to ~= node then
  return answer('moved', number, to)
end
if not own then
  own_number = state == 'open' and number or 0
  redis.call('HSET', sessions, node, table.concat({ 'open', whole(own_number), whole(now), region }, ' '))
  if state == 'open' then
    if redis.call('EXISTS', KEYS[5]) == 1 then
      redis.call('RENAME', KEYS[5], KEYS[4])
    end
    redis.call('HSET', sessions, before, table.concat({ 'moved', whole(number), whole(now), region, node }, ' '))
    state = 'moved'
  end
  local all = redis.call('HKEYS', sessions)
  for _, known in ipairs(all) do
    local ended, _, _, since = session(known)
    if not ended or (ended ~= 'open' and now - since > tonumber(ARGV[5])) then
      redis.call('HDEL', sessions, known)
    end
  end
end
if state == 'moved' then
  return answer('held', own_number)
elseif state == 'over' then
  return answer('lost', number)
end
return answer('unknown', 0)
