#!lua flags=allow-oom
-- Finds out what became of a history that was seen up to a head.
--
-- KEYS  1 events, 2 meta, 3 collapse
-- ARGV  1 head, 2 epoch, 3 step, 4 ms the position lives, 5 events in a page, 6 bytes in a page,
--       7 home version or '', 8… ids seen, newest first
local now = clock()
local head, step = ARGV[1], tonumber(ARGV[3])
local limit, max_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local stream = open(KEYS[1], KEYS[2], now, step, ARGV[4], ARGV[7])
stream.collapse = KEYS[3]

-- Writes a fork down, so that ids go on above what was shown. A mark, if one is wanted, raises the stream
-- there, and the first event after it breaks the chain for all readers that have not got the gap.
local function record(ancestor, mark)
  local fork, before = stream.fork, stream.last
  local shown = highest(highest_shown(stream), head)
  if fork and above(fork.mark, ancestor) and fork.mark ~= fork.before then
    -- Somebody reported this tail, or another that was lost before: a reader that missed it meets that mark.
    -- Raising again would break the chain for those that got the gap: a false alarm. With an ancestor that is
    -- too old, readers would be given again what they know: it is the newer of two.
    fork.ancestor = highest(fork.ancestor, ancestor)
    fork.head = highest(fork.head, head)
  elseif mark then
    stream.last = next_id(shown, now, step)
    fork = { ancestor = ancestor, head = head, before = before, mark = stream.last }
  else
    fork = { ancestor = ancestor, head = shown, before = before, mark = before }
  end
  -- Whoever was at the ancestor goes on there, and nothing in the chain shows it that a tail is missing before it.
  local first = redis.call('XRANGE', stream.key, '(' .. fork.ancestor, newest_possible(now), 'COUNT', 1)[1]
  local follows = first and field(first, 'p') == fork.ancestor and not above(first[1], fork.before)
  fork.next = follows and first[1] or fork.mark
  stream.fork = fork
  local words = { fork.ancestor, fork.head, fork.before, fork.mark, fork.next }
  redis.call('HSET', stream.meta, 'last', stream.last, 'fork', table.concat(words, ' '))
  redis.call('PEXPIRE', stream.meta, ARGV[4])
end

if not sound(head, now) then
  -- No store gave it: nothing is written down of it, and readers there are sent the stream's position.
  return page_from(stream, stream.last, limit, max_bytes, now)
end

if knows(stream, head) then
  return page_after(stream, head, limit, max_bytes, now)
end

if stream.epoch ~= ARGV[2] then
  -- Flushed and started again: the histories share nothing, so the new one counts from its epoch, and every
  -- chain breaks there without a mark. Only ids have to go on above the head.
  if not above(stream.last, head) then
    record(stream.last, false)
  end
  return page_from(stream, stream.epoch, limit, max_bytes, now)
end

for at = 8, #ARGV do
  if has(stream, ARGV[at]) then
    record(ARGV[at], true)
    return page_from(stream, ARGV[at], limit, max_bytes, now)
  end
end

if above(head, stream.last) then
  -- Nothing that was seen is left to compare with, but ids that the store never had were shown.
  local ancestor = stream.last
  record(ancestor, true)
  return page_from(stream, ancestor, limit, max_bytes, now)
end

local below = redis.call('XREVRANGE', stream.key, head, '-', 'COUNT', 1)[1]
if below then
  -- The log reaches back beyond `head` and does not have it. Where the histories part is unknown, but
  -- not after the newest event below.
  record(below[1], true)
  return page_from(stream, below[1], limit, max_bytes, now)
end

-- Ordinary trimming, or a fork that somebody else reported.
return page_after(stream, head, limit, max_bytes, now)
