-- The functions that producers call: they check what a node would check, then do what the scripts of nodes do.
-- This is put behind those, as `publish(KEYS, ARGV)` and `lease_…(KEYS, ARGV)`, behind `SETTINGS`, which are those of the
-- node that loaded it, and behind lua/json.lua.

local function refuse(slug, detail)
  return redis.error_reply('ERR ' .. slug .. ': ' .. detail)
end

-- What was given, cut short, and on one line.
local function quoted(text)
  return "'" .. string.gsub(string.sub(text, 1, 64), '[%c\128-\255]', '?') .. "'"
end

-- The stream that a tag names; otherwise nil and what is wrong.
local function named_stream(tag)
  local kind, name = string.match(tag, '^(%a+):(.*)$')
  if kind ~= 'device' and kind ~= 'topic' then
    return nil, quoted(tag) .. ' is not a stream: expected device:NAME or topic:NAME'
  end
  if #name < 1 or #name > 200 or string.find(name, '[^A-Za-z0-9%-._~:@|=]') or name == '.' or name == '..'
    or string.sub(name, 1, 9) == 'whimbrel:' then
    return nil, 'the name ' .. quoted(name) .. ' is not allowed; allowed are 1 to 200 characters out of ' ..
      "A-Z a-z 0-9 - . _ ~ : @ | =, not '.' or '..', not beginning with 'whimbrel:'"
  end
  return tag
end

local function bad_type(kind)
  return #kind < 1 or #kind > 128 or string.find(kind, '[^A-Za-z0-9._:/%-]') or kind == 'open' or kind == 'error'
    or string.sub(kind, 1, 9) == 'whimbrel:'
end

-- A W3C traceparent, if that is what it is: an invalid one is ignored, as no event is to be lost for it. Of a newer
-- version the fields are taken that are known.
local function trace_of(text)
  local version, trace, parent, flags, rest = string.match(text, '^(%x%x)%-(%x+)%-(%x+)%-(%x%x)(.*)$')
  if not version or #trace ~= 32 or #parent ~= 16 or string.find(string.sub(text, 1, 55), '%u') or version == 'ff'
    or not string.find(trace, '[^0]') or not string.find(parent, '[^0]')
    or (rest ~= '' and (version == '00' or string.sub(rest, 1, 1) ~= '-')) then
    return ''
  end
  -- The flags sampled and random, the two lowest bits.
  return '00-' .. trace .. '-' .. parent .. '-0' .. tonumber(flags, 16) % 4
end

-- How much of a stream is kept: the first rule that matches it. A rule's pattern is given as what stands
-- between its stars.
local function matches(parts, text)
  local first = parts[1]
  if string.sub(text, 1, #first) ~= first then return false end
  if #parts == 1 then return #text == #first end
  local at = #first + 1
  for index = 2, #parts - 1 do
    local _, stop = string.find(text, parts[index], at, true)
    if not stop then return false end
    at = stop + 1
  end
  local last = parts[#parts]
  return #text - at + 1 >= #last and string.sub(text, #text - #last + 1) == last
end

local function retention(stream)
  for _, rule in ipairs(SETTINGS.retention) do
    if matches(rule.parts, stream) then return rule end
  end
end

-- Publishes an event.
--
-- KEYS  1 K:events, 2 K:nodes, 3 K:meta, 4 K:collapse, 5 K:once:KEY or K:once:-
-- ARGV  1 data, then names and values: type, ttl, collapse, key, traceparent
-- Answer: the event's id.
local OPTIONS = { type = true, ttl = true, collapse = true, key = true, traceparent = true }

local function publish_checked(keys, args)
  if #keys ~= 5 then
    return refuse('invalid-keys', 'expected 5 keys: K:events K:nodes K:meta K:collapse K:once:KEY, where K is ' ..
      SETTINGS.prefix .. ':{device:NAME} or ' .. SETTINGS.prefix .. ':{topic:NAME}')
  end
  local head = SETTINGS.prefix .. ':{'
  local tag = string.match(keys[1], '^(.*)}:events$')
  if not tag or string.sub(tag, 1, #head) ~= head then
    return refuse('invalid-keys', 'the first key is ' .. quoted(keys[1]) .. ', expected ' .. head ..
      'device:NAME}:events or ' .. head .. 'topic:NAME}:events')
  end
  local stream, wrong = named_stream(string.sub(tag, #head + 1))
  if not stream then
    return refuse('invalid-name', wrong)
  end
  local base = tag .. '}:'
  for index, suffix in ipairs({ 'events', 'nodes', 'meta', 'collapse' }) do
    if keys[index] ~= base .. suffix then
      return refuse('invalid-keys', 'key ' .. index .. ' is ' .. quoted(keys[index]) .. ', expected ' ..
        base .. suffix)
    end
  end

  local data = args[1]
  if not data then
    return refuse('invalid-data', 'the data is missing')
  end
  if #data > SETTINGS.event_bytes then
    return refuse('too-large', "the event's data has " .. #data .. ' bytes; allowed are ' .. SETTINGS.event_bytes)
  end
  local fault = json_fault(data)
  if fault then
    return refuse('invalid-json', 'the data ' .. fault)
  end

  local given = {}
  for index = 2, #args, 2 do
    local name, value = args[index], args[index + 1]
    if not OPTIONS[name] then
      return refuse('invalid-option', quoted(name) .. ' is not known; known: type, ttl, collapse, key, traceparent')
    elseif given[name] then
      return refuse('invalid-option', name .. ' is given more than once')
    elseif not value then
      return refuse('invalid-option', 'the value of ' .. name .. ' is missing')
    end
    given[name] = value
  end
  local kind, ttl, collapse, key = given.type or '', given.ttl or '', given.collapse or '', given.key or ''
  if given.type and bad_type(kind) then
    return refuse('invalid-type', quoted(kind) .. " can't be an event type; allowed are 1 to 128 characters out of " ..
      "A-Z a-z 0-9 . _ : / -, not 'open' or 'error', not beginning with 'whimbrel:'")
  end
  if kind == 'message' then kind = '' end
  if given.ttl then
    local seconds = string.find(ttl, '^%d+$') and tonumber(ttl)
    if not seconds or seconds < 1 or seconds > SETTINGS.longest_ttl then
      return refuse('invalid-ttl', 'the ttl is ' .. quoted(ttl) .. ', expected whole seconds from 1 to ' ..
        SETTINGS.longest_ttl)
    end
    ttl = string.format('%d000', seconds)
  end
  if given.collapse and (#collapse < 1 or #collapse > 128 or string.find(collapse, '[^\33-\126]')) then
    return refuse('invalid-collapse', 'the collapse key must be 1 to 128 visible ASCII characters')
  end
  if given.key and (#key < 1 or #key > 128 or string.find(key, '[^\33-\126]')) then
    return refuse('invalid-key', 'the idempotency key must be 1 to 128 visible ASCII characters')
  end
  local once = base .. 'once:' .. (given.key or '-')
  if keys[5] ~= once then
    return refuse('invalid-keys', 'key 5 is ' .. quoted(keys[5]) .. ', expected ' .. quoted(once))
  end

  local kept = retention(stream)
  -- Ids step at random, so that two masters after a split do not give one id to two events. The random numbers
  -- of scripts are the same on every master; a digest of the event and the microsecond is not.
  local time = redis.call('TIME')
  local step = tonumber(string.sub(redis.sha1hex(time[1] .. '.' .. time[2] .. kind .. '\0' .. data), 1, 4), 16) + 1
  local answer = publish(keys, {
    stream, data, kind, key, tostring(step), kept.events, kept.ms, kept.position_ms, SETTINGS.once_ms,
    SETTINGS.channels, ttl, collapse, '', SETTINGS.home, '', trace_of(given.traceparent or ''), '',
  })
  if answer[3] == 2 then
    return refuse('key-reused',
      'the idempotency key was used within the last 5 minutes for an event with another body or type')
  elseif answer[3] > 2 then
    return refuse('unavailable', 'the stream does not take events here now')
  end
  return answer[1]
end

-- Takes, renews or ends the lease of a stream.
--
-- KEYS  1 P:{producers}:leases, 2 P:{producers}:deadlines, where P is the prefix
-- ARGV  `take`, the stream, seconds, and where wanted `key` and an idempotency key; `renew`, the stream, the
--       lease, seconds; or `end`, the stream, the lease
-- Answer: the lease.
local LEASE_WORDS = { take = 3, renew = 4, ['end'] = 3 }

local function lease_checked(keys, args)
  local leases, deadlines = SETTINGS.prefix .. ':{producers}:leases', SETTINGS.prefix .. ':{producers}:deadlines'
  if #keys ~= 2 or keys[1] ~= leases or keys[2] ~= deadlines then
    return refuse('invalid-keys', 'expected 2 keys: ' .. leases .. ' ' .. deadlines)
  end
  local what = args[1] or ''
  local words = LEASE_WORDS[what]
  local keyed = what == 'take' and #args == 5 and args[4] == 'key'
  if not words or (#args ~= words and not keyed) then
    return refuse('invalid-option', 'expected take STREAM SECONDS [key KEY], renew STREAM LEASE SECONDS, or ' ..
      'end STREAM LEASE')
  end
  local stream, wrong = named_stream(args[2])
  if not stream then
    return refuse('invalid-name', wrong)
  end
  local seconds = what ~= 'end' and args[words]
  if seconds and (not string.find(seconds, '^[1-9]%d*$') or #seconds > 9 or
    tonumber(seconds) > SETTINGS.longest_lease) then
    return refuse('invalid-seconds', 'the time is ' .. quoted(seconds) .. ', expected whole seconds from 1 to ' ..
      SETTINGS.longest_lease)
  end
  if what == 'take' then
    local key = keyed and args[5] or ''
    if keyed and (#key < 1 or #key > 128 or string.find(key, '[^\33-\126]')) then
      return refuse('invalid-key', 'the idempotency key must be 1 to 128 visible ASCII characters')
    end
    local time = redis.call('TIME')
    local id = string.sub(redis.sha1hex(time[1] .. '.' .. time[2] .. ' ' .. stream .. ' ' .. key), 1, 32)
    local answer = lease_take(keys, { stream, id, seconds .. '000', key, SETTINGS.most_leases })
    if answer[1] == 'held' then
      return refuse('lease-held', stream .. ' has a lease, and only one at a time; it lapses in ' .. answer[2] ..
        ' ms unless it is renewed')
    elseif answer[1] == 'full' then
      return refuse('too-many-leases', 'there are as many leases as there may be')
    end
    return answer[2]
  end
  local lease = args[3]
  local in_force
  if what == 'renew' then
    in_force = lease_renew(keys, { stream, lease, seconds .. '000' })
  else
    in_force = lease_end(keys, { stream, lease, 'held' })
  end
  if in_force ~= 1 then
    return refuse('lease-lost', stream .. ' has no such lease: it lapsed, or was ended')
  end
  return lease
end

redis.register_function({
  function_name = SETTINGS.lease,
  callback = lease_checked,
  description = SETTINGS.description,
  -- A store without room takes no events, but its producer is still there.
  flags = { 'allow-oom' },
})

redis.register_function({
  function_name = SETTINGS.name,
  callback = publish_checked,
  description = SETTINGS.description,
  -- Sharded channels of nodes lie in other slots of the same master.
  flags = { 'allow-cross-slot-keys' },
})
