#!lua flags=allow-oom
-- Moves a stream's acknowledged position forward, or only returns it.
--
-- KEYS  1 events, 2 meta, 3 nodes
-- ARGV  1 id or '', 2 home version or ''
-- Answer: last, epoch, up to where events were sent to nodes or '', the acknowledged position or ''. An id above last moves
--         nothing: this history has no such event, and what it will have up to there was not seen.
local now = clock()
local stream = look(KEYS[1], KEYS[2], now, ARGV[2])
local acked = sound(redis.call('HGET', KEYS[2], 'acked'), now)
local id = ARGV[1]
if id ~= '' and above(id, acked or stream.epoch) and not above(id, stream.last) then
  redis.call('HSET', KEYS[2], 'acked', id)
  acked = id
end
return { stream.last, stream.epoch, told(stream, KEYS[3]), acked or '' }
