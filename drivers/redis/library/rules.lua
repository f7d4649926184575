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
    changed = false,            -- there may be more of them than the limits allow
  }
end

local function is_ready(name) return string.sub(name, 1, #READY) == READY end

local function ready_at(level) return level == 0 and READY or READY .. level end

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

-- recount notes that so many entries more are ready, where they were counted.
local function recount(n)
  if rules.ready then rules.ready = rules.ready + n end
end

-- place makes an entry ready; without a count it keeps its own.
local function place(p, id, fields, count, fresh)
  local command = {'XCLAIM', p, GROUP, ready_at(level_of(fields)), 0, id, 'JUSTID'}
  if count then
    command[#command + 1] = 'RETRYCOUNT'
    command[#command + 1] = count
  end
  if fresh then
    command[#command + 1] = 'FORCE'
    command[#command + 1] = 'LASTID'
    command[#command + 1] = id
  end
  redis.call(unpack(command))
  resize(fields, 1)
  recount(1)
end

-- absorb makes ready what another program has added.
local function absorb(p)
  while true do
    local r = redis.call('XREADGROUP', 'GROUP', GROUP, '.new', 'COUNT', 100, 'STREAMS', p, '>')
    if not r then return end
    for _, e in ipairs(r[1][2]) do place(p, e[1], e[2], 0) end
    rules.changed = true
  end
end

local function ready(p)
  if not rules.ready then
    rules.ready = 0
    for _, c in ipairs(redis.call('XPENDING', p, GROUP)[4] or {}) do
      if is_ready(c[1]) then rules.ready = rules.ready + tonumber(c[2]) end
    end
    if rules.ready == 0 then rules.size = 0 end
  end
  return rules.ready
end

-- nth is the ID of the entry that would be delivered after n others, and its
-- holder.
local function nth(p, n)
  for level = rules.levels, 0, -1 do
    local owner = ready_at(level)
    local pending = redis.call('XPENDING', p, GROUP, '-', '+', n + 1, owner)
    if #pending > n then return pending[n + 1][1], owner end
    n = n - #pending
  end
end

-- active is the single active consumer.
local function active(p) return redis.call('ZRANGE', p .. ':turns', 0, 0)[1] end

-- promised is how many ready entries consumers wait for: they are as good as
-- delivered, and count in no limit.
local function promised(p)
  if rules.single then
    local first = active(p)
    return tonumber(first and redis.call('HGET', p .. ':rooms', first) or 0)
  end
  local n = 0
  for _, room in ipairs(redis.call('HVALS', p .. ':rooms')) do n = n + tonumber(room) end
  return n
end

-- widen notes that a consumer waits for so many more, if it waits at all.
local function widen(p, consumer, n)
  if rules.limited and redis.call('HEXISTS', p .. ':rooms', consumer) == 1 then
    redis.call('HINCRBY', p .. ':rooms', consumer, n)
  end
end

-- beyond reports whether the queue exceeds its limits, or would with one entry
-- more of the size.
local function beyond(p, spare, size)
  local n, more = ready(p), size and 1 or 0
  local waiting = n > spare and rules.size or 0
  return rules.length and n - spare + more > rules.length
    or rules.bytes and (n > spare or size) and waiting + (size or 0) > rules.bytes
end

-- full reports whether the queue refuses a new entry.
local function full(p, size)
  -- What does not fit at all is refused, also where a consumer waits for it.
  return rules.reject and rules.limited and beyond(p, promised(p), size)
end

-- let_go takes a ready entry out of the queue: for a move to the dead letters, or
-- for good.
local function let_go(p, id, owner, dead)
  if rules then
    if rules.bytes then
      local e = entry(p, id)
      if e then resize(e[2], -1) end
    end
    recount(-1)
  end
  if dead then
    redis.call('XCLAIM', p, GROUP, owner, 0, id, 'TIME', 0, 'JUSTID')
  else
    redis.call('XACK', p, GROUP, id)
    redis.call('XDEL', p, id)
  end
end

-- trim drops what is beyond the limits from the head of what nobody waits for.
local function trim(p)
  rules.changed = false
  if rules.reject or not rules.limited then return end
  local spare = promised(p)
  while beyond(p, spare) do
    local id = nth(p, spare)
    if not id then
      rules.ready = nil -- somebody else deleted entries
      return
    end
    let_go(p, id, MAXLEN, rules.dead)
  end
end

-- retire takes from a consumer its turn and what was promised to it.
local function retire(p, consumer)
  redis.call('HDEL', p .. ':rooms', consumer)
  rules.changed = true
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
