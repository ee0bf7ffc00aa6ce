#!lua flags=allow-oom
-- Notes that a node may have a route to a stream, for the node that cleans up after it. For a node
-- without a lease nothing is noted: it was cleaned up after already, and nobody would remove it.
--
-- KEYS  1 streams of the node, 2 its lease
-- ARGV  1 stream, 2 ms that the note is kept unless the lease is renewed
if redis.call('EXISTS', KEYS[2]) == 0 then
  return 0
end
redis.call('SADD', KEYS[1], ARGV[1])
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
