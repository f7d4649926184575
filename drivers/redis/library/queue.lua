-- A queue as a whole.

-- create: none for a queue without rules; else the levels of priority beside the
-- lowest, most entries and most bytes, 0: no limit, 1 to reject what exceeds
-- them, 1 where there are dead letters, 1 for a single active consumer.
local function create(keys, args)
  local p = keys[1]
  for _, key in ipairs({p, p .. ':wake'}) do
    local r = redis.pcall('XGROUP', 'CREATE', key, GROUP, '0', 'MKSTREAM')
    if r.err and not string.find(r.err, 'BUSYGROUP', 1, true) then return r end
  end
  -- A write in any case: who waits for replicas waits for the last one.
  redis.call('HSET', p .. ':usage', 'since', redis.call('HGET', p .. ':usage', 'since') or ms(now()))
  if #args > 0 then
    redis.call('HSET', p .. ':rules', 'levels', args[1], 'length', args[2], 'bytes', args[3],
      'reject', args[4], 'dead', args[5], 'single', args[6])
  end
  return 1
end

-- count: how many are ready, held by consumers, and dead letters to be. Between the
-- XDEL and the XACK of a consumer too few are ready.
local function count(p)
  local total, held, dead = redis.call('XLEN', p), 0, 0
  for _, c in ipairs(redis.call('XPENDING', p, GROUP)[4] or {}) do
    if c[1] == EXPIRED or c[1] == MAXLEN then
      dead = dead + tonumber(c[2])
    elseif string.sub(c[1], 1, 1) ~= '.' then
      held = held + tonumber(c[2])
    end
  end
  return math.max(total - held - dead, 0), held, dead
end

-- inspect: ready, unsettled, consumers; 0 when the queue is gone.
local function inspect(keys, args)
  local p, t = keys[1], now()
  if gone(p) then return 0 end
  if expire(p, t) then wake(p) end
  if rules and rules.changed then trim(p) end
  local ready, held = count(p)
  return {ready, held, redis.call('ZCARD', p .. ':consumers')}
end

-- unused is for how long the queue has been, in ms, and how many consumers it has.
local function unused(p, t)
  expire(p, t)
  local n = redis.call('ZCARD', p .. ':consumers')
  if n > 0 then return 0, n end
  local since = redis.call('HGET', p .. ':usage', 'since')
  if not since then -- an older revision made it
    since = ms(t)
    redis.call('HSET', p .. ':usage', 'since', since)
  end
  return math.max(t - tonumber(since), 0), 0
end

-- usage: consumers, 1 if it has had any, for how long it is unused in ms; 0 when
-- the queue is gone.
local function usage(keys, args)
  local p = keys[1]
  if gone(p) then return 0 end
  local idle, n = unused(p, now())
  local used = n > 0 or redis.call('HGET', p .. ':usage', 'used')
  return {n, used and 1 or 0, idle}
end

-- touch begins anew the time for which the queue is unused.
local function touch(keys, args)
  local p = keys[1]
  if gone(p) then return 0 end
  redis.call('HSET', p .. ':usage', 'since', ms(now()))
  return 1
end

-- purge: none to remove all at once, as older clients do; else the ID up to which
-- entries are removed, '' for all that are there now, and how many at most. Returns
-- how many were removed and, where so many were at most, the ID for the next call, ''
-- when there are no more; -1 when the queue is gone.
local function purge(keys, args)
  local p, t = keys[1], now()
  if gone(p) then return {-1} end
  expire(p, t)
  if rules and rules.changed then trim(p) end
  local to, left, removed = args[1] or '', tonumber(args[2] or math.huge), 0
  if to == '' then to = last_generated(p) end
  local function remove(ids)
    redis.call('XACK', p, GROUP, unpack(ids))
    removed = removed + redis.call('XDEL', p, unpack(ids))
    left = left - #ids
  end
  local owners = {READY, DELAYED}
  for level = 1, rules and rules.levels or 0 do owners[#owners + 1] = ready_at(level) end
  if rules then ready(p) end
  for _, owner in ipairs(owners) do
    while left > 0 do
      local pending = redis.call('XPENDING', p, GROUP, '-', to, math.min(CHUNK, left), owner)
      if #pending == 0 then break end
      local ids = {}
      for i, e in ipairs(pending) do ids[i] = e[1] end
      if owner == DELAYED then
        redis.call('ZREM', p .. ':delayed', unpack(ids))
      elseif rules then
        for _, id in ipairs(rules.bytes and ids or {}) do rules.size = rules.size - size_at(p, id) end
        recount(level_named(owner), -#ids)
      end
      remove(ids)
    end
  end
  local _, held, dead = count(p)
  if left > 0 and held + dead == 0 then
    local at, n = string.match(to, '^(%d+)-(%d+)$')
    removed = removed + redis.call('XTRIM', p, 'MINID', at .. '-' .. ms(n + 1))
  else
    local last = last_delivered(p)
    while left > 0 do
      local entries = redis.call('XRANGE', p, '(' .. last, to, 'COUNT', math.min(100, left))
      if #entries == 0 then break end
      local ids = {}
      for i, e in ipairs(entries) do ids[i] = e[1] end
      remove(ids)
    end
  end
  return args[2] and {removed, left > 0 and '' or to} or {removed}
end

-- delete: 1 if unused, 1 if empty, if unused for so many ms. Returns 0 when a
-- condition does not hold.
local function delete(keys, args)
  local p = keys[1]
  if not gone(p) then
    local idle, n = unused(p, now())
    if args[1] == '1' and n > 0 then return 0 end
    if args[2] == '1' then
      local any
      if rules then any = count(p) > 0 else any = head(p) or redis.call('ZCARD', p .. ':delayed') > 0 end
      if any then return 0 end
    end
    local least = tonumber(args[3] or 0)
    if least > 0 and (n > 0 or idle < least) then return 0 end
  end
  for _, suffix in ipairs({'', ':wake', ':delayed', ':consumers', ':lanes', ':usage', ':rules', ':rooms', ':turns', ':standby'}) do
    redis.call('UNLINK', p .. suffix)
  end
  rules = nil
  return 1
end
