#!lua
-- Adds to the counts of the nodes that a device's events go to, and returns them. What was counted before fades.
--
-- KEYS  1 the device's send history: a hash of node to "amount ms"
-- ARGV  1 the half-life in ms, 2 nodes kept, 3 ms it lives, 4… a node and how much went to it, in turn
-- Answer: a node and what counts for it now, in turn, the most first.
local now = clock()
local amounts, nodes = {}, {}

local function add(node, amount)
  if not amounts[node] then
    nodes[#nodes + 1] = node
  end
  amounts[node] = (amounts[node] or 0) + amount
end

local known = redis.call('HGETALL', KEYS[1])
for at = 1, #known, 2 do
  local amount, ms = string.match(known[at + 1], '^([%d.]+) (%d+)$')
  if amount then
    add(known[at], amount * 2 ^ (-math.max(now - ms, 0) / ARGV[1]))
  end
end
for at = 4, #ARGV, 2 do
  add(ARGV[at], tonumber(ARGV[at + 1]))
end
table.sort(nodes, function(a, b)
  return amounts[a] > amounts[b] or (amounts[a] == amounts[b] and a < b)
end)

local answer, entries = {}, {}
for at = 1, math.min(#nodes, tonumber(ARGV[2])) do
  local amount = string.format('%.3f', amounts[nodes[at]])
  answer[#answer + 1] = nodes[at]
  answer[#answer + 1] = amount
  entries[#entries + 1] = nodes[at]
  entries[#entries + 1] = amount .. string.format(' %.0f', now)
end
if #ARGV > 3 then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], unpack(entries))
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return answer
