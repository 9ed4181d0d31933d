-- Who was first, for many machines. A visitor's claims are the fields of a hash that expires; whoever sets a
-- field is first, and remains it if it asks again because the answer got lost; so does who was handed what a
-- visitor is owed.
--
-- KEYS: 1 what visitors are owed · 2 how often that changed · 3… the claims of each visitor asked about
-- ARGV: 1 what to do · 2 its arguments as JSON

local OWED, CHANGES = KEYS[1], KEYS[2]
local HANDED_OUT = 'owed' -- field of a visitor's claims: what was owed last, and to whom it was handed
local call = redis.call
local ask = cjson.decode(ARGV[2])
local answer = {granted = {}, owed = {}}

local function changed()
  call('INCR', CHANGES)
  call('EXPIRE', OWED, ask.age)
end

local todo = {}

function todo.claim()
  local any_owed = call('HLEN', OWED) > 0
  for at, visitor in ipairs(ask.visitors) do
    local key, token, granted = KEYS[2 + at], ask.token .. ':' .. at, {}
    for _, field in ipairs(ask.fields[at]) do
      local first = call('HSETNX', key, field, token) == 1 or call('HGET', key, field) == token
      if first then granted[#granted + 1] = field end
    end
    if #granted > 0 then call('EXPIRE', key, ask.age) end
    answer.granted[at] = granted
    local owed = any_owed and call('HGET', OWED, visitor)
    if owed then
      call('HDEL', OWED, visitor)
      call('HSET', key, HANDED_OUT, token .. '\n' .. owed)
      call('EXPIRE', key, ask.age)
      changed()
    elseif ask.again then
      local told = call('HGET', key, HANDED_OUT)
      local theirs = told and string.sub(told, 1, #token + 1) == token .. '\n'
      owed = theirs and string.sub(told, #token + 2)
    end
    if owed then answer.owed[#answer.owed + 1] = {at, owed} end
  end
end

function todo.back()
  for at, visitor in ipairs(ask.visitors) do
    for _, field in ipairs(ask.fields[at]) do call('HDEL', KEYS[2 + at], field) end
    local before = call('HGET', OWED, visitor)
    if before or call('HLEN', OWED) < ask.most then
      call('HSET', OWED, visitor, (before and before .. '\n' or '') .. ask.texts[at])
    end
  end
  changed()
end

function todo.owed()
  answer.visitors = call('HKEYS', OWED)
end

function todo.look() end

todo[ARGV[1]]()
answer.changes = tonumber(call('GET', CHANGES) or '0')
return cjson.encode(answer)
