#!lua flags=allow-oom
-- Tells a node over its own channel that the channel is heard.
--
-- A script, and one that may write: a demoted master refuses it. There a plain PUBLISH would be heard by
-- those who are still subscribed there, although nothing else will ever come.
--
-- KEYS  1 the node's lease
-- ARGV  1 channel, 2 beat
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
