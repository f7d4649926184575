-- Rules: priorities, limits and a single active consumer. In a queue with rules
-- every entry that is ready is held in the group: those of level 0 by .ready,
-- those of level 3 by .ready3. So nobody reads the stream.

local rules -- of the queue that the present call is about; nil: it has none

local function read_rules(p)
  local v = redis.call('HMGET', p .. ':rules', 'levels', 'length', 'bytes', 'reject', 'dead', 'single', 'size')
  local function limit(s)
    local n = tonumber(s or 0)
    return n > 0 and n or nil
  end
  return {
    levels = tonumber(v[1] or 0), length = limit(v[2]), bytes = limit(v[3]),
    limited = limit(v[2]) or limit(v[3]),
    reject = v[4] == '1', dead = v[5] == '1', single = v[6] == '1',
    size = tonumber(v[7] or 0), -- of the bodies that are ready, where bytes are limited
    ready = nil,                -- how many entries are, once they were counted
    at = nil,                   -- the same by level
    promised = nil,             -- how many of them consumers wait for, once it was counted
    promised_size = nil,        -- of their bodies, likewise
    changed = false,            -- there may be more than the limits allow
  }
end

local function ready_at(level) return level == 0 and READY or READY .. level end

-- level_named is the level of those that a member of the group holds ready.
local function level_named(name)
  if string.sub(name, 1, #READY) ~= READY then return end
  return tonumber(string.sub(name, #READY + 1)) or 0
end

local function level_of(fields)
  if rules.levels == 0 then return 0 end
  for i = 1, #fields, 2 do
    if fields[i] == 'priority' then
      local n = string.match(fields[i + 1], '^%d+$') and tonumber(fields[i + 1]) or 0
      return n > 255 and 0 or math.min(n, rules.levels)
    end
  end
  return 0
end

local function size_of(fields)
  for i = #fields - 1, 1, -2 do
    if fields[i] == 'body' then return #fields[i + 1] end
  end
  return 0
end

local function entry(p, id) return redis.call('XRANGE', p, id, id)[1] end

local function resize(fields, sign)
  if rules.bytes then rules.size = rules.size + sign * size_of(fields) end
end

-- recount notes that so many entries more are ready at a level, where they were
-- counted.
local function recount(level, n)
  if not rules.ready then return end
  rules.ready = rules.ready + n
  rules.at[level] = (rules.at[level] or 0) + n
end

-- place makes an entry ready that is new; fresh: nobody has read it.
local function place(p, id, fields, fresh)
  local level = level_of(fields)
  local command = {'XCLAIM', p, GROUP, ready_at(level), 0, id, 'JUSTID', 'RETRYCOUNT', 0}
  if fresh then
    for _, option in ipairs({'FORCE', 'LASTID', id}) do command[#command + 1] = option end
  end
  redis.call(unpack(command))
  resize(fields, 1)
  recount(level, 1)
end

-- sorted is entries by level, as they become ready.
local function sorted(p, ids)
  rules.changed = true
  if rules.levels == 0 and not rules.bytes then
    recount(0, #ids)
    return {[0] = ids}
  end
  local by_level = {}
  for _, id in ipairs(ids) do
    local e = entry(p, id)
    if e then
      local level = level_of(e[2])
      by_level[level] = by_level[level] or {}
      table.insert(by_level[level], id)
      resize(e[2], 1)
      recount(level, 1)
    else
      redis.call('XACK', p, GROUP, id)
    end
  end
  return by_level
end

-- absorb makes ready what another program has added.
local function absorb(p)
  while true do
    local r = redis.call('XREADGROUP', 'GROUP', GROUP, '.new', 'COUNT', 100, 'STREAMS', p, '>')
    if not r then return end
    for _, e in ipairs(r[1][2]) do place(p, e[1], e[2]) end
    rules.changed = true
  end
end

local function ready(p)
  if rules.ready then return rules.ready end
  rules.ready, rules.at = 0, {}
  for _, c in ipairs(redis.call('XPENDING', p, GROUP)[4] or {}) do
    local level = level_named(c[1])
    if level then recount(level, tonumber(c[2])) end
  end
  if rules.ready == 0 then rules.size = 0 end
  return rules.ready
end

-- ready_levels iterates over the levels where entries are ready, in the order of
-- delivery.
local function ready_levels(p)
  ready(p)
  local level = rules.levels + 1
  return function()
    repeat level = level - 1 until level < 0 or (rules.at[level] or 0) > 0
    return level >= 0 and level or nil
  end
end

-- active is the single active consumer.
local function active(p) return redis.call('ZRANGE', p .. ':turns', 0, 0)[1] end

-- A consumer with room calls each second. One that did not for so long is not
-- waited for, though its lease may be long: what is ready counts in the limits.
local PROMISE = 3000

-- promise notes for how many entries a consumer waits.
local function promise(p, consumer, n)
  rules.promised = nil
  redis.call('HSET', p .. ':rooms', consumer, n .. ' ' .. ms(now()))
end

-- waits_for is how many entries a consumer waits for, by its room.
local function waits_for(room, t)
  local n, at = string.match(room, '^(%d+) (%d+)$')
  return n and tonumber(at) + PROMISE >= t and tonumber(n) or 0
end

-- lapse takes away what was promised to consumers of which nothing was heard.
local function lapse(p, t)
  if not rules.limited then return end
  local rooms = redis.call('HGETALL', p .. ':rooms')
  for i = 1, #rooms, 2 do
    if string.sub(rooms[i + 1], 1, 2) ~= '0 ' and waits_for(rooms[i + 1], t) == 0 then
      promise(p, rooms[i], 0)
      rules.changed = true
    end
  end
end

-- promised is how many ready entries consumers wait for: they are as good as
-- delivered, and count in no limit.
local function promised(p)
  if rules.promised then return rules.promised end
  local rooms
  if rules.single then
    local first = active(p)
    rooms = {first and redis.call('HGET', p .. ':rooms', first) or nil}
  else
    rooms = redis.call('HVALS', p .. ':rooms')
  end
  local n, t = 0, now()
  for _, room in ipairs(rooms) do n = n + waits_for(room, t) end
  rules.promised = n
  return n
end

-- widen notes that a consumer has settled so many, which is room, if it takes
-- messages still.
local function widen(p, consumer, n)
  local room = rules.limited and redis.call('HGET', p .. ':rooms', consumer)
  if room then promise(p, consumer, waits_for(room, now()) + n) end
end

local function size_at(p, id)
  local e = entry(p, id)
  return e and size_of(e[2]) or 0
end

-- let_go takes entries out of the queue: for a move to the dead letters, or for
-- good.
local function let_go(p, ids, owner, dead)
  if #ids == 0 then return end
  if dead then
    local command = {'XCLAIM', p, GROUP, owner, 0}
    for _, id in ipairs(ids) do command[#command + 1] = id end
    for _, option in ipairs({'TIME', 0, 'JUSTID'}) do command[#command + 1] = option end
    redis.call(unpack(command))
  else
    redis.call('XACK', p, GROUP, unpack(ids))
    redis.call('XDEL', p, unpack(ids))
  end
end

-- in_order iterates over the ready entries in the order of delivery, of which so
-- many are likely to be wanted: their IDs and levels.
local function in_order(p, likely)
  local levels = ready_levels(p)
  local level, from = levels(), '-'
  local pending, i, count = {}, 0, math.max(likely, 1)
  return function()
    i = i + 1
    while level and not pending[i] do
      count = math.min(count, CHUNK)
      pending, i = redis.call('XPENDING', p, GROUP, from, '+', count, ready_at(level)), 1
      if #pending > 0 then
        from = '(' .. pending[#pending][1]
        count = 2 * count
      else
        level, from = levels(), '-'
      end
    end
    if level then return pending[i][1], level end
  end
end

-- promised_size is the size of the bodies that are promised.
local function promised_size(p)
  local left = promised(p)
  if left >= ready(p) then return rules.size end
  if not rules.promised_size then
    local size = 0
    for id in in_order(p, left + 1) do
      if left == 0 then break end
      left = left - 1
      size = size + size_at(p, id)
    end
    rules.promised_size = size
  end
  return rules.promised_size
end

-- full reports whether the queue refuses a new entry of the size. What does not
-- fit at all is refused, also where a consumer waits for it.
local function full(p, size)
  if not rules.reject or not rules.limited then return false end
  return rules.length and ready(p) - promised(p) >= rules.length
    or rules.bytes and rules.size + size > rules.bytes and rules.size - promised_size(p) + size > rules.bytes
end

-- trim drops what is beyond the limits from the head of what nobody waits for, in
-- one pass.
local function trim(p)
  rules.changed = false
  if rules.reject or not rules.limited then return end
  local left = promised(p)
  local waiting, size = ready(p) - left, rules.size -- once what is promised was passed
  local function beyond()
    return waiting > 0 and (rules.length and waiting > rules.length or rules.bytes and size > rules.bytes)
  end
  if not beyond() then return end
  local dropped = {}
  for id, level in in_order(p, left + math.max(waiting - (rules.length or waiting), 1)) do
    if not beyond() then break end
    local n = rules.bytes and size_at(p, id) or 0
    size = size - n
    if left > 0 then
      left = left - 1
    else
      waiting = waiting - 1
      rules.size = rules.size - n
      recount(level, -1)
      dropped[#dropped + 1] = id
    end
  end
  for from = 1, #dropped, CHUNK do
    let_go(p, {unpack(dropped, from, math.min(from + CHUNK - 1, #dropped))}, MAXLEN, rules.dead)
  end
end

-- retire takes from a consumer its turn and what was promised to it.
local function retire(p, consumer)
  redis.call('HDEL', p .. ':rooms', consumer)
  rules.promised, rules.changed = nil, true
  if rules.single then
    local was = active(p)
    redis.call('ZREM', p .. ':turns', consumer)
    if was == consumer then
      redis.call('XADD', p .. ':standby', 'MAXLEN', 1, '*', 's', '1')
    end
  end
end

-- close_rules ends a call.
local function close_rules(p)
  if rules.changed then trim(p) end
  if rules.bytes then redis.call('HSET', p .. ':rules', 'size', ms(math.max(rules.size, 0))) end
end
