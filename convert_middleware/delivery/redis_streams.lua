-- One step of an outbox that many machines share: what ended, a sign of life, and then one thing to do.
-- It knows streams, accounts and leases, and nothing of what the hits say. A script runs alone, so that every
-- step happens as a whole or not at all.
--
-- KEYS: 1-3 fresh hits by worth (streams) · 4 retries under way (stream) · 5-7 retries that wait, by worth
--       (sorted by when they are due) · 8 dead letters (stream) · 9 totals · 10 what owners must still be told
--       · 11 until when each process counts as alive · 12 the last step of each process, should its answer get lost
-- ARGV: 1 what to do · 2 its arguments as JSON; numbers that must stay exact are strings

local GROUP = 'senders'
local AGAIN, RETRIES, DEAD, TOTALS, CEDED, ALIVE, STEPS = 4, 5, 8, 9, 10, 11, 12
local call = redis.call
local ask = cjson.decode(ARGV[2])
local me = ask.me
local clock = call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local answer = {entered = 0, mine = 0, gained = 0, dropped = 0, interrupted = 0, sacrificed = {}, hits = {}, late = {}}

local function number(field)
  return tonumber(call('HGET', KEYS[TOTALS], field) or '0')
end

-- A fresh hit lies behind the last one that was read of its stream; ids only grow.
local function first_fresh(worth)
  local last = call('HGET', KEYS[TOTALS], 'read' .. worth) or '0-0'
  return call('XRANGE', KEYS[1 + worth], '(' .. last, '+', 'COUNT', 1)[1]
end

local function fields_of(pairs_)
  local fields = {}
  for at = 1, #pairs_, 2 do fields[pairs_[at]] = pairs_[at + 1] end
  return fields
end

-- A retry is a list of strings: [id, text, worth, accepted, attempts, waited, owner, receipt]
local function unpacked(member)
  local list = cjson.decode(member)
  return {t = list[2], w = list[3], a = list[4], n = list[5], d = list[6], o = list[7], r = list[8]}
end

local hits_change, bytes_change = 0, 0
local told = {}

local function entered(text)
  answer.entered = answer.entered + 1
  hits_change = hits_change + 1
  bytes_change = bytes_change + #text
end

-- A hit waits no longer; if it was somebody else's, it is ours now, and the owner must hear of it.
local function left(fields)
  hits_change = hits_change - 1
  bytes_change = bytes_change - #fields.t
  if fields.o == me then
    answer.mine = answer.mine + 1
  else
    answer.gained = answer.gained + 1
    told[fields.o] = (told[fields.o] or 0) + 1
  end
end

local function close_books()
  if hits_change ~= 0 and call('HINCRBY', KEYS[TOTALS], 'hits', hits_change) == 0 then
    call('HSET', KEYS[TOTALS], 'bytes', 0)  -- it may have been an estimate
  elseif bytes_change ~= 0 then
    call('HINCRBY', KEYS[TOTALS], 'bytes', bytes_change)
  end
  for owner, many in pairs(told) do call('HINCRBY', KEYS[CEDED], owner, many) end
  answer.ceded = tonumber(call('HGET', KEYS[CEDED], me) or '0')
  local known = call('HMGET', KEYS[TOTALS], 'epoch', 'made')
  answer.epoch, answer.made = known[1], tonumber(known[2] or '0')
  answer.step = ask.step
end

-- What is known of the last step of a process: its number, and the answer if it happened and was not given up.
local function signed_step()
  local number, told = string.match(call('HGET', KEYS[STEPS], me) or '', '^(%d+) (.*)$')
  return tonumber(number or '0'), told or ''
end

-- Remember the step without the texts, which can be read again.
local function sign_step()
  local hits = answer.hits
  answer.hits = {}
  for at, hit in ipairs(hits) do answer.hits[at] = hit[1] end
  call('HSET', KEYS[STEPS], me, string.format('%.0f ', ask.step) .. cjson.encode(answer))
  answer.hits = hits
end

local function next_number()
  return string.format('%.0f', call('HINCRBY', KEYS[TOTALS], 'last', 1))
end

local function add_fresh(hit)
  local id = next_number() .. '-0'
  call('XADD', KEYS[1 + tonumber(hit[2])], id,
    't', hit[1], 'w', hit[2], 'a', hit[3], 'n', hit[4], 'd', hit[5], 'o', me, 'r', hit[6])
  entered(hit[1])
end

-- The least valuable goes first; of these the retry that is due last, then the oldest.
local function sacrifice()
  for worth = 0, 2 do
    local retries = KEYS[RETRIES + worth]
    local last = call('ZREVRANGE', retries, 0, 0)[1]
    if last then
      call('ZREM', retries, last)
      return unpacked(last)
    end
    local fresh = first_fresh(worth)
    if fresh then
      call('XDEL', KEYS[1 + worth], fresh[1])
      return fields_of(fresh[2])
    end
  end
end

local function make_room()
  local hits, bytes = number('hits') + hits_change, number('bytes') + bytes_change
  while hits > ask.max_hits or bytes > ask.max_bytes do
    local victim = sacrifice()
    if not victim then return end
    left(victim)
    hits, bytes = hits - 1, bytes - #victim.t
    answer.dropped = answer.dropped + 1
    if victim.r ~= '' then answer.sacrificed[#answer.sacrificed + 1] = victim.r end
  end
end

-- A key can be gone while others are there, as where Redis evicts. What was read stays read, so that nothing is
-- handed out twice; what nobody can hold any more goes. All processes hear of it and count what they have left.
local function make_group(stream, first)
  local key = KEYS[stream]
  local last = stream < AGAIN and call('HGET', KEYS[TOTALS], 'read' .. stream - 1) or '0-0'
  local made = redis.pcall('XGROUP', 'CREATE', key, GROUP, last, 'MKSTREAM')
  if not made.err then
    if stream == AGAIN and not first then
      call('XTRIM', key, 'MAXLEN', 0)
    else
      call('XTRIM', key, 'MINID', first or (string.match(last, '^%d+') .. '-1'))
    end
    if call('HEXISTS', KEYS[TOTALS], 'epoch') == 1 then call('HINCRBY', KEYS[TOTALS], 'made', 1) end
  elseif not string.find(made.err, 'BUSYGROUP', 1, true) then
    return made
  elseif stream < AGAIN and call('HEXISTS', KEYS[TOTALS], 'read' .. stream - 1) == 0 then
    for _, group in ipairs(call('XINFO', 'GROUPS', key)) do
      local about = fields_of(group)
      if about.name == GROUP then
        call('HSET', KEYS[TOTALS], 'read' .. stream - 1, about['last-delivered-id'])
      end
    end
  end
end

local function make_groups()
  for stream = 1, 4 do
    local failed = make_group(stream)
    if failed then return failed end
  end
end

-- Return the next hits of a stream; they are held by this process.
local function held_from_now(stream, many, first)
  local command = {'XREADGROUP', 'GROUP', GROUP, me, 'COUNT', many, 'STREAMS', KEYS[stream], '>'}
  local found = redis.pcall(unpack(command))
  if found and found.err then
    make_group(stream, first)
    found = call(unpack(command))
  end
  return found and found[1][2] or {}
end

local function handed_out(stream, id, fields)
  answer.hits[#answer.hits + 1] =
    {stream .. '/' .. id, fields.t, fields.w, fields.a, fields.n, fields.d, fields.r}
end

local function number_of(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

local function first_lower(one, other)
  return one[1] < other[1]
end

local function take_due(number_wanted)
  local due = {}
  for worth = 0, 2 do
    local key = KEYS[RETRIES + worth]
    local found = call('ZRANGEBYSCORE', key, '-inf', ask.now, 'WITHSCORES', 'LIMIT', 0, number_wanted)
    for at = 1, #found, 2 do due[#due + 1] = {tonumber(found[at + 1]), key, found[at]} end
  end
  table.sort(due, first_lower)
  for at = 1, math.min(number_wanted, #due) do
    local fields = unpacked(due[at][3])
    -- Written to a stream and read at once, a retry is under the same lease as a fresh hit.
    local id = call('XADD', KEYS[AGAIN], '*', 't', fields.t, 'w', fields.w, 'a', fields.a, 'n', fields.n,
      'd', fields.d, 'o', fields.o, 'r', fields.r)
    held_from_now(AGAIN, 1, id)
    call('ZREM', due[at][2], due[at][3])
    left(fields)
    handed_out(AGAIN, id, fields)
  end
end

-- Three streams are read as one, in the order of their ids.
local function take_fresh(number_wanted)
  local heads, wanted, read = {}, {}, {}
  for worth = 0, 2 do
    local last = call('HGET', KEYS[TOTALS], 'read' .. worth) or '0-0'
    local found = call('XRANGE', KEYS[1 + worth], '(' .. last, '+', 'COUNT', number_wanted)
    for _, entry in ipairs(found) do
      heads[#heads + 1] = {number_of(entry), worth}
    end
  end
  table.sort(heads, first_lower)
  for at = 1, math.min(number_wanted, #heads) do
    wanted[heads[at][2]] = (wanted[heads[at][2]] or 0) + 1
  end
  for worth, many in pairs(wanted) do
    for _, entry in ipairs(held_from_now(1 + worth, many)) do
      read[#read + 1] = {number_of(entry), worth, entry}
      call('HSET', KEYS[TOTALS], 'read' .. worth, entry[1])
    end
  end
  table.sort(read, first_lower)
  for _, each in ipairs(read) do
    local worth, entry = each[2], each[3]
    local fields = fields_of(entry[2])
    left(fields)
    handed_out(1 + worth, entry[1], fields)
  end
end

local function wait_again(fields, due)
  local member = cjson.encode({next_number(), fields.t, fields.w, fields.a, fields.n, fields.d, me, fields.r})
  call('ZADD', KEYS[RETRIES + tonumber(fields.w)], due, member)
  entered(fields.t)
end

local function is_alive(process)
  return process == me or tonumber(call('ZSCORE', KEYS[ALIVE], process) or '0') >= now
end

-- What is held by processes that gave no sign of life may have left; whether it is sent again is asked.
local function take_over(key, process)
  for _, held in ipairs(call('XPENDING', key, GROUP, '-', '+', 100, process)) do
    local entry = call('XRANGE', key, held[1], held[1])[1]
    if entry then
      answer.gained = answer.gained + 1
      if ask['repeat'] then
        wait_again(fields_of(entry[2]), ask.now)
      else
        answer.interrupted = answer.interrupted + 1
      end
      call('XDEL', key, held[1])
    end
    call('XACK', key, GROUP, held[1])
  end
end

local function reclaim()
  make_groups()
  for stream = 1, 4 do
    for _, consumer in ipairs(call('XPENDING', KEYS[stream], GROUP)[4] or {}) do
      if not is_alive(consumer[1]) then take_over(KEYS[stream], consumer[1]) end
    end
  end
  for _, gone in ipairs(call('ZRANGEBYSCORE', KEYS[ALIVE], '-inf', now - 3600, 'LIMIT', 0, 100)) do
    local busy = false
    for stream = 1, 4 do
      busy = busy or #call('XPENDING', KEYS[stream], GROUP, '-', '+', 1, gone) > 0
    end
    if not busy then
      for stream = 1, 4 do call('XGROUP', 'DELCONSUMER', KEYS[stream], GROUP, gone) end
      call('ZREM', KEYS[ALIVE], gone)
      call('HDEL', KEYS[CEDED], gone)
      call('HDEL', KEYS[STEPS], gone)
    end
  end
end

-- Count what waits, that of this process and the bytes of all; it reads everything, and only after a loss.
local function count_mine()
  local mine, bytes = 0, 0
  local function count(fields)
    bytes = bytes + #fields.t
    if fields.o == me then mine = mine + 1 end
  end
  for worth = 0, 2 do
    local after = call('HGET', KEYS[TOTALS], 'read' .. worth) or '0-0'
    while after do
      local page = call('XRANGE', KEYS[1 + worth], '(' .. after, '+', 'COUNT', 1000)
      for _, entry in ipairs(page) do count(fields_of(entry[2])) end
      after = #page == 1000 and page[#page][1]
    end
    for _, member in ipairs(call('ZRANGE', KEYS[RETRIES + worth], 0, -1)) do count(unpacked(member)) end
  end
  call('HSET', KEYS[TOTALS], 'bytes', bytes)
  return mine
end

local todo = {}

function todo.open()
  local failed = make_groups()
  if failed then return failed end
  call('HSETNX', KEYS[TOTALS], 'epoch', ask.epoch)
  -- Should all data be lost, ids that processes remember must not be given to other hits.
  call('HSETNX', KEYS[TOTALS], 'last', string.format('%.0f', now * 1e6))
  local hits, bytes, weighed = 0, 0, 0
  local function weigh(text)
    bytes, weighed = bytes + #text, weighed + 1
  end
  for worth = 0, 2 do
    local stream, retries = KEYS[1 + worth], KEYS[RETRIES + worth]
    hits = hits + call('XLEN', stream) - call('XPENDING', stream, GROUP)[1] + call('ZCARD', retries)
    if weighed < ask.number then
      local last = call('HGET', KEYS[TOTALS], 'read' .. worth) or '0-0'
      local fresh = call('XRANGE', stream, '(' .. last, '+', 'COUNT', ask.number - weighed)
      for _, entry in ipairs(fresh) do weigh(fields_of(entry[2]).t) end
    end
    if weighed < ask.number then
      local waiting = call('ZRANGE', retries, 0, ask.number - weighed - 1)
      for _, member in ipairs(waiting) do weigh(unpacked(member).t) end
    end
  end
  if weighed < hits then  -- too many to read them all while Redis serves nobody else
    bytes = hits == number('hits') and number('bytes') or math.floor(bytes / math.max(weighed, 1) * hits)
  end
  call('HSET', KEYS[TOTALS], 'hits', hits, 'bytes', bytes)
  if ask.made and ask.made ~= number('made') then answer.waits = count_mine() end
end

function todo.put()
  for _, hit in ipairs(ask.put) do add_fresh(hit) end
  make_room()
end

function todo.take()
  if ask.reclaim then reclaim() end
  take_due(ask.number)
  local room = ask.number - #answer.hits
  if room > 0 then take_fresh(room) end
end

function todo.back()
  for _, hit in ipairs(ask.back) do
    local held = true
    if hit.id then
      held = call('XACK', KEYS[hit.stream], GROUP, hit.id) == 1
      call('XDEL', KEYS[hit.stream], hit.id)
    end
    if held then wait_again(hit, hit.due) else answer.late[#answer.late + 1] = hit.key end
  end
  make_room()
end

function todo.next()
  answer.fresh = false
  for worth = 0, 2 do
    if first_fresh(worth) then answer.fresh = true end
    local due = call('ZRANGE', KEYS[RETRIES + worth], 0, 0, 'WITHSCORES')[2]
    if due and (not answer.due or tonumber(due) < tonumber(answer.due)) then answer.due = due end
  end
  answer.others = call('ZCOUNT', KEYS[ALIVE], now, '+inf') - 1
end

function todo.commit() end

-- One page of what a visitor left; a receipt begins with whose it is.
function todo.purge()
  local function theirs(fields)
    return string.sub(fields.r or '', 1, #ask.visitor) == ask.visitor
  end
  if ask.place == 'retries' then
    local key = KEYS[RETRIES + ask.worth]
    local first = tonumber(ask.after) or 0
    local page = call('ZRANGE', key, first, first + ask.number - 1)
    for _, member in ipairs(page) do
      local fields = unpacked(member)
      if theirs(fields) then
        call('ZREM', key, member)
        left(fields)
        answer.dropped = answer.dropped + 1
      end
    end
    if #page == ask.number then answer.after = tostring(first + #page - answer.dropped) end
    return
  end
  local waits = ask.place == 'fresh'
  local key = KEYS[waits and 1 + ask.worth or DEAD]
  local after = ask.after
  if after == '' then after = waits and call('HGET', KEYS[TOTALS], 'read' .. ask.worth) or '0-0' end
  local page = call('XRANGE', key, '(' .. after, '+', 'COUNT', ask.number)
  for _, entry in ipairs(page) do
    local fields = fields_of(entry[2])
    if theirs(fields) then
      call('XDEL', key, entry[1])
      if waits then
        left(fields)
        answer.dropped = answer.dropped + 1
      end
    end
  end
  if #page == ask.number then answer.after = page[#page][1] end
end

-- For people who look after the outbox. They are no process with an account: ask.me is empty.

function todo.status()
  make_groups()
  answer.waiting, answer.bytes = number('hits'), number('bytes')
  answer.retrying, answer.in_flight, answer.dead = 0, 0, call('XLEN', KEYS[DEAD])
  answer.processes = call('ZCOUNT', KEYS[ALIVE], now, '+inf')
  local function seen(accepted)
    if not answer.oldest or tonumber(accepted) < tonumber(answer.oldest) then answer.oldest = accepted end
  end
  for stream = 1, 4 do
    answer.in_flight = answer.in_flight + call('XPENDING', KEYS[stream], GROUP)[1]
  end
  for worth = 0, 2 do
    answer.retrying = answer.retrying + call('ZCARD', KEYS[RETRIES + worth])
    local fresh = first_fresh(worth)
    if fresh then seen(fields_of(fresh[2]).a) end
    for _, member in ipairs(call('ZRANGE', KEYS[RETRIES + worth], 0, 999)) do seen(unpacked(member).a) end
  end
end

function todo.letters()
  answer.letters = {}
  for at, entry in ipairs(call('XRANGE', KEYS[DEAD], ask.after, '+', 'COUNT', ask.number)) do
    local fields = fields_of(entry[2])
    answer.letters[at] = {entry[1], fields.w, fields.a, fields.at, fields.n, fields.why, fields.t}
  end
end

function todo.replay()
  for _, key in ipairs(ask.letters) do
    local letter = call('XRANGE', KEYS[DEAD], key, key)[1]
    if letter then
      local fields = fields_of(letter[2])
      add_fresh({fields.t, fields.w, ask.now, '0', '0.0', fields.r})
      call('XDEL', KEYS[DEAD], key)
    end
  end
end

function todo.purge_dead()
  local letters = call('XRANGE', KEYS[DEAD], '-', '+', 'COUNT', ask.number)
  for at, entry in ipairs(letters) do
    answer.sacrificed[at] = fields_of(entry[2]).r
    call('XDEL', KEYS[DEAD], entry[1])
  end
  answer.dropped = #letters
end

function todo.purge_waiting()
  while answer.dropped < ask.number do
    local victim = sacrifice()
    if not victim then return end
    left(victim)
    answer.dropped = answer.dropped + 1
    answer.sacrificed[answer.dropped] = victim.r
  end
end

function todo.leave()
  make_groups()
  if ask.bar then  -- a step that was given up may still come; dead processes are forgotten after an hour
    call('ZADD', KEYS[ALIVE], now - 1, me)
    call('HSET', KEYS[STEPS], me, string.format('%.0f ', ask.bar))
  else
    call('ZREM', KEYS[ALIVE], me)
    call('HDEL', KEYS[STEPS], me)
  end
  for stream = 1, 4 do
    if #call('XPENDING', KEYS[stream], GROUP, '-', '+', 1, me) == 0 then
      call('XGROUP', 'DELCONSUMER', KEYS[stream], GROUP, me)
    end
  end
end

-- The answer of this step got lost: tell it again if the step happened. Otherwise it must not happen any more: who
-- asked makes another one in its place, and what a closed connection had sent may still be on its way.
local function last_step()
  local number, told = signed_step()
  if number < ask.step then
    local barred = redis.pcall('HSET', KEYS[STEPS], me, string.format('%.0f ', ask.step))
    if type(barred) == 'table' then return barred end
  end
  if number ~= ask.step or told == '' then return {unknown = true} end
  local step = cjson.decode(told)
  for at, key in ipairs(step.hits) do
    local stream, id = string.match(key, '^(%d)/(.+)$')
    local entry = call('XRANGE', KEYS[tonumber(stream)], id, id)[1]
    local fields = entry and fields_of(entry[2])
    step.hits[at] = fields and {key, fields.t, fields.w, fields.a, fields.n, fields.d, fields.r} or {key}
  end
  return step
end

if ARGV[1] ~= 'open' and not call('HGET', KEYS[TOTALS], 'epoch') then
  return cjson.encode({epoch = ''})
end
if ARGV[1] == 'again' then
  local step = last_step()
  if step.err then return step end
  return cjson.encode(step)
end
if ask.step and signed_step() >= ask.step then return redis.error_reply('LATE this step was given up') end
-- Without memory a sign of life may be refused, and taking hits out must still work.
if ask.lease then redis.pcall('ZADD', KEYS[ALIVE], now + ask.lease / 1000, me) end
for stream, ids in pairs(ask.ended or {}) do
  local key = KEYS[tonumber(stream)]
  for at = 1, #ids, 1000 do
    local last = math.min(at + 999, #ids)
    call('XACK', key, GROUP, unpack(ids, at, last))
    call('XDEL', key, unpack(ids, at, last))
  end
end
for _, letter in ipairs(ask.buried or {}) do
  call('XADD', KEYS[DEAD], 'MAXLEN', '~', ask.max_dead, '*', 't', letter[1], 'w', letter[2], 'a', letter[3],
    'n', letter[4], 'r', letter[5], 'why', letter[6], 'at', letter[7])
end
local failed = todo[ARGV[1]]()
if failed then return failed end
close_books()
if ask.step then sign_step() end
return cjson.encode(answer)
