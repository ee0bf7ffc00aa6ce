#!lua flags=allow-oom
-- Tells a node something over its channel: its own beat, or what another node has to say.
--
-- A script, and one that may write: a demoted master refuses it. There a plain PUBLISH would reach
-- nodes that are still subscribed there, although nothing else will ever come.
--
-- KEYS  1 the node's lease
-- ARGV  1 channel, 2 message
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
