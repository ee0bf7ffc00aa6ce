#!lua flags=allow-oom
-- Finds out what became of a history that was seen up to a head.
--
-- KEYS  1 events, 2 meta
-- ARGV  1 head, 2 born, 3 step, 4 ms the position lives, 5 events in a page, 6 bytes in a page,
--       7… ids seen, newest first
local now = clock()
local head, step = ARGV[1], tonumber(ARGV[3])
local limit, max_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local stream = open(KEYS[1], KEYS[2], now, step, ARGV[4])

-- Writes a fork down. With `raise` the stream goes above both sides, so that no id falls below what was
-- shown and the first event afterwards breaks the chain for all who were not told.
local function record(ancestor, raise)
  local fork = stream.fork
  if fork and fork.ancestor == ancestor and above(fork.mark, ancestor) then
    -- Somebody reported it before. Raising again would break the chain for those who were told and wait
    -- at the mark: a false alarm.
    fork.head = highest(fork.head, head)
  else
    if raise then
      stream.last = next_id(highest(stream.last, head), now, step)
      redis.call('HSET', stream.meta, 'last', stream.last)
    end
    fork = { ancestor = ancestor, head = head, mark = stream.last }
    stream.fork = fork
  end
  redis.call('HSET', stream.meta, 'fork', fork.ancestor .. ' ' .. fork.head .. ' ' .. fork.mark)
  redis.call('PEXPIRE', stream.meta, ARGV[4])
end

if knows(stream, head) then
  return page_after(stream, head, limit, max_bytes, now)
end

if stream.born ~= ARGV[2] then
  -- Flushed and born again: the histories share nothing, so the new one counts from its birth.
  if not above(stream.last, head) then
    record(stream.born, true)
  elseif not above(stream.born, head) then
    -- New ids are above all that was shown, so nothing has to be raised, but positions up to `head`
    -- would pass for positions of the new history unless it is written down.
    record(stream.born, false)
  end
  return page_from(stream, stream.born, limit, max_bytes, now)
end

for at = 7, #ARGV do
  if has(stream, ARGV[at]) then
    record(ARGV[at], true)
    return page_from(stream, ARGV[at], limit, max_bytes, now)
  end
end

if above(head, stream.last) then
  -- Nothing that was seen is left to compare with, but ids that the store never heard of were shown.
  local ancestor = stream.last
  record(ancestor, true)
  return page_from(stream, ancestor, limit, max_bytes, now)
end

-- Ordinary trimming, or a fork that somebody else reported.
return page_after(stream, head, limit, max_bytes, now)
