#!lua flags=allow-oom
-- Notes that a node may have a route to a stream, for whoever cleans up after the node.
--
-- KEYS  1 streams of the node
-- ARGV  1 stream
return redis.call('SADD', KEYS[1], ARGV[1])
