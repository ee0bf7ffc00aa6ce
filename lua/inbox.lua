#!lua flags=allow-oom
-- Says where a stream's acknowledged position is, and counts events after it that wait for the device.
--
-- KEYS  1 events, 2 meta, 3 collapse, 4 nodes
-- ARGV  1 id to count on from, or '' to begin, 2 events to look at, 3 bytes to look at, 4 home version or ''
-- Answer: last, epoch, up to where events were sent to nodes or '', the acknowledged position or '', events that wait,
--         id to count on from or ''.
local now = clock()
local stream = look(KEYS[1], KEYS[2], now, ARGV[4])
stream.collapse = KEYS[3]
local acked = sound(redis.call('HGET', KEYS[2], 'acked'), now)
local from = ARGV[1]
if from == '' then
  from = acked or stream.epoch
end
local entries, more = {}, false
if from ~= MAX_ID then
  local start = '(' .. shared(stream, from)
  entries, more = collect(stream, 'XRANGE', start, newest_possible(now), tonumber(ARGV[2]), tonumber(ARGV[3]), now)
end
local waiting = 0
for _, entry in ipairs(entries) do
  if field(entry, 'x') ~= '0' and not field(entry, 's') then
    waiting = waiting + 1
  end
end
return { stream.last, stream.epoch, told(stream, KEYS[4]), acked or '', waiting, more and entries[#entries][1] or '' }
