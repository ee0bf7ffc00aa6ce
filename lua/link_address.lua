#!lua flags=allow-oom
-- Where a node is reached for links.
--
-- KEYS  1 the node's lease
-- Answer: the address; false if the node has no lease or no links.
return redis.call('HGET', KEYS[1], 'link')
