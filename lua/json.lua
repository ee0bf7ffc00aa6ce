-- Whether a text is JSON that an event may carry: the same rules as in src/model/json.rs. cjson takes more than that:
-- hexadecimal numbers, NaN, line ends inside strings, text that is not UTF-8. A listener's parser would stop at them,
-- and at all that shares a message with them.

-- What is wrong where a value is not what JSON's grammar allows.
local NOT_JSON = 'is not JSON'

-- The first byte that does not belong to well-formed UTF-8; nil when all do.
local function broken_utf8(text)
  local at = string.find(text, '[\128-\255]')
  while at do
    local _, stop = string.find(text, '^[\194-\223][\128-\191]', at)
    if not stop then _, stop = string.find(text, '^\224[\160-\191][\128-\191]', at) end
    if not stop then _, stop = string.find(text, '^[\225-\236\238\239][\128-\191][\128-\191]', at) end
    if not stop then _, stop = string.find(text, '^\237[\128-\159][\128-\191]', at) end
    if not stop then _, stop = string.find(text, '^\240[\144-\191][\128-\191][\128-\191]', at) end
    if not stop then _, stop = string.find(text, '^[\241-\243][\128-\191][\128-\191][\128-\191]', at) end
    if not stop then _, stop = string.find(text, '^\244[\128-\143][\128-\191][\128-\191]', at) end
    if not stop then return at end
    at = string.find(text, '[\128-\255]', stop + 1)
  end
end

-- Each of these is given where a token begins, and returns where the next one does, or nil, where it went wrong and
-- what is wrong there.
local function json_space(text, at)
  return string.find(text, '[^ \t\r\n]', at) or #text + 1
end

local function json_string(text, at)
  at = at + 1
  while true do
    -- %z is the byte 0, which a pattern can't hold itself.
    at = string.find(text, '["\\%z\1-\31]', at)
    if not at then return nil, #text + 1, NOT_JSON end
    local found = string.byte(text, at)
    if found == 34 then return at + 1 end
    if found ~= 92 then return nil, at, NOT_JSON end
    if string.find(text, '^["\\/bfnrt]', at + 1) then
      at = at + 2
    elseif string.find(text, '^u[dD][89abAB]%x%x\\u[dD][c-fC-F]%x%x', at + 1) then
      at = at + 12
    elseif string.find(text, '^u[dD][89a-fA-F]%x%x', at + 1) then
      return nil, at, 'has a lone surrogate'
    elseif string.find(text, '^u%x%x%x%x', at + 1) then
      at = at + 6
    else
      return nil, at, NOT_JSON
    end
  end
end

local function json_number(text, at)
  local _, stop = string.find(text, '^%-?[1-9]%d*', at)
  if not stop then _, stop = string.find(text, '^%-?0', at) end
  if not stop then return nil, at, NOT_JSON end
  local _, fraction = string.find(text, '^%.%d+', stop + 1)
  stop = fraction or stop
  local _, exponent = string.find(text, '^[eE][+-]?%d+', stop + 1)
  return (exponent or stop) + 1
end

local json_value

-- The members of an object, or the elements of an array, behind the bracket that opened it.
local function json_members(text, at, depth, closing, is_object)
  if depth > SETTINGS.max_nesting then
    return nil, at - 1, 'is nested deeper than ' .. SETTINGS.max_nesting .. ' levels'
  end
  at = json_space(text, at)
  if string.byte(text, at) == closing then return at + 1 end
  while true do
    local place, wrong
    if is_object then
      if string.byte(text, at) ~= 34 then return nil, at, NOT_JSON end
      at, place, wrong = json_string(text, at)
      if not at then return nil, place, wrong end
      at = json_space(text, at)
      if string.byte(text, at) ~= 58 then return nil, at, NOT_JSON end
      at = json_space(text, at + 1)
    end
    at, place, wrong = json_value(text, at, depth)
    if not at then return nil, place, wrong end
    at = json_space(text, at)
    local next = string.byte(text, at)
    if next == closing then return at + 1 end
    if next ~= 44 then return nil, at, NOT_JSON end
    at = json_space(text, at + 1)
  end
end

function json_value(text, at, depth)
  local first = string.byte(text, at)
  if first == 34 then return json_string(text, at) end
  if first == 123 then return json_members(text, at + 1, depth + 1, 125, true) end
  if first == 91 then return json_members(text, at + 1, depth + 1, 93, false) end
  for _, word in ipairs({ 'true', 'false', 'null' }) do
    if string.sub(text, at, at + #word - 1) == word then return at + #word end
  end
  return json_number(text, at)
end

-- What is wrong with a text, and where, counted in bytes from 1; nil when nothing is.
local function json_fault(text)
  local broken = broken_utf8(text)
  if broken then return NOT_JSON .. ' at byte ' .. broken end
  local at, place, wrong = json_value(text, json_space(text, 1), 0)
  if not at then return wrong .. ' at byte ' .. place end
  at = json_space(text, at)
  if at <= #text then return NOT_JSON .. ' at byte ' .. at end
end
