#!lua flags=allow-oom
-- Tries what scripts need: whether the user may run each command on keys and channels like a node's, and whether a
-- write and a message go through.
--
-- KEYS  1 a key that nobody uses
-- ARGV  1 a channel like those of nodes, 2 what is published there
-- Answer: the commands that the user may not run.
local key, channel = KEYS[1], ARGV[1]
local COMMANDS = {
  { 'DEL', key }, { 'EXISTS', key }, { 'GET', key }, { 'HDEL', key, 'a' }, { 'HEXISTS', key, 'a' },
  { 'HGET', key, 'a' }, { 'HGETALL', key }, { 'HKEYS', key }, { 'HLEN', key }, { 'HMGET', key, 'a' },
  { 'HRANDFIELD', key, '1' }, { 'HSCAN', key, '0' }, { 'HSET', key, 'a', '1' }, { 'HSETNX', key, 'a', '1' },
  { 'PERSIST', key }, { 'PEXPIRE', key, '1' }, { 'PEXPIREAT', key, '1' }, { 'PTTL', key },
  { 'PUBLISH', channel, '1' }, { 'RENAME', key, key }, { 'SADD', key, '1' }, { 'SET', key, '1' },
  { 'SRANDMEMBER', key }, { 'SREM', key, '1' }, { 'TIME' }, { 'TYPE', key }, { 'UNLINK', key },
  { 'XADD', key, '*', 'a', '1' }, { 'XDEL', key, '1-1' }, { 'XINFO', 'STREAM', key }, { 'XLEN', key },
  { 'XRANGE', key, '-', '+' }, { 'XREVRANGE', key, '+', '-' }, { 'XSETID', key, '1-1' },
  { 'ZADD', key, '1', 'a' }, { 'ZCOUNT', key, '1', '1' }, { 'ZRANGE', key, '0', '1' },
  { 'ZRANGEBYSCORE', key, '1', '1' }, { 'ZREM', key, 'a' }, { 'ZSCORE', key, 'a' },
}
local denied = {}
for _, command in ipairs(COMMANDS) do
  if not redis.acl_check_cmd(unpack(command)) then
    denied[#denied + 1] = command[1]
  end
end
if #denied == 0 then
  redis.call('SET', key, '1', 'PX', 1000)
  redis.call('DEL', key)
  redis.call('PUBLISH', channel, ARGV[2])
end
return denied
