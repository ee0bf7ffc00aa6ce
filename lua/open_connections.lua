#!lua flags=allow-oom
-- Some of what a node has open: a page at a time, as a node may have hundreds of thousands.
--
-- KEYS  1 meta, 2 what the node has open
-- ARGV  1 cursor, '0' to begin, 2 about how many, 3 home version or ''
-- Answer: the cursor of the next page, '0' at the end; connections, each followed by what is remembered of it.
require_home(KEYS[1], ARGV[3])
return redis.call('HSCAN', KEYS[2], ARGV[1], 'COUNT', ARGV[2])
