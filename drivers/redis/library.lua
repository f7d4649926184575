#!lua name=polymq1

-- The steps of polymq that must be atomic. KEYS[1] is always the prefix of a
-- namespace, polymq:{ns}, or of a queue, polymq:{ns:incarnation}, which is also
-- the queue's stream. Other keys are that prefix and a suffix, so they are in
-- the same hash slot. docs/WIRE.md describes what is stored.

local GROUP = 'polymq'
local READY = '.ready'     -- holds what was given back, in the order of the stream
local DELAYED = '.delayed' -- holds what was given back with a delay
local CHUNK = 1000         -- unpack takes no more than some thousands

local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function ms(n) return string.format('%.0f', n) end

-- Topology --------------------------------------------------------------------

local function version(p)
  local v = redis.call('HMGET', p .. ':version', 'epoch', 'n', 'wire')
  if v[3] and v[3] ~= '1' then
    error({err = 'POLYMQWIRE ' .. v[3]})
  end
  return v[1], v[2]
end

-- When clients last renewed a lease, by namespace. It outlives a FLUSHALL, which
-- takes the leases away but not their clients' trust in them.
local renewed = {}
local LEASE = 10000 -- longer than any client relies on one

local function remember(p, t)
  if not renewed[p] then
    for other, at in pairs(renewed) do
      if at + LEASE < t then renewed[other] = nil end
    end
  end
  renewed[p] = t
end

-- load: a fresh epoch for the case that there is none, then the version known.
-- Only a version that the log knows has a difference to the present one: a
-- failover or a restored file can have taken back the one that a client saw.
local function load(keys, args)
  local p = keys[1]
  local epoch, n = version(p)
  if not epoch then
    epoch, n = args[1], '0'
    redis.call('HSET', p .. ':version', 'epoch', epoch, 'n', n, 'wire', '1')
    local t = now()
    if renewed[p] and renewed[p] + LEASE > t then
      redis.call('HSET', p .. ':version', 'born-at', ms(t))
    end
  end
  if args[2] == epoch then
    if args[3] == n then return {epoch, n, 0, {}} end
    if #redis.call('XRANGE', p .. ':changes', args[3], args[3], 'COUNT', 1) > 0 then
      local last, order = {}, {}
      for _, e in ipairs(redis.call('XRANGE', p .. ':changes', ms(tonumber(args[3]) + 1), '+')) do
        local name = e[2][2]
        if last[name] == nil then order[#order + 1] = name end
        last[name] = e[2][4] or false
      end
      local out = {}
      for _, name in ipairs(order) do
        out[#out + 1] = name
        out[#out + 1] = last[name]
      end
      return {epoch, n, 0, out}
    end
  end
  return {epoch, n, 1, redis.call('HGETALL', p .. ':topology')}
end

-- apply: epoch, n, then name, '+' or '-', data of each element. Returns the next
-- n, 0 where that is not the present version. It goes by the clock, so that no
-- number comes again after the last ones were lost.
local function apply(keys, args)
  local p = keys[1]
  local epoch, n = version(p)
  if epoch ~= args[1] or n ~= args[2] then return 0 end
  local t = redis.call('TIME')
  n = ms(math.max(tonumber(n) + 1, t[1] * 1000000 + t[2]))
  redis.call('HSET', p .. ':version', 'n', n)
  for i = 3, #args, 3 do
    local id = n .. '-' .. ms((i - 3) / 3)
    if args[i + 1] == '+' then
      redis.call('HSET', p .. ':topology', args[i], args[i + 2])
      redis.call('XADD', p .. ':changes', 'MAXLEN', '~', 4000, id, 'name', args[i], 'data', args[i + 2])
    else
      redis.call('HDEL', p .. ':topology', args[i])
      redis.call('XADD', p .. ':changes', 'MAXLEN', '~', 4000, id, 'name', args[i])
    end
  end
  redis.call('PUBLISH', p .. ':changed', n)
  return tonumber(n)
end

-- renew: client, epoch, n, time to live in ms.
local function renew(keys, args)
  local p = keys[1]
  local epoch, n = version(p)
  if epoch ~= args[2] or n ~= args[3] then return 0 end
  local t = now()
  redis.call('HSET', p .. ':leases', args[1], epoch .. ' ' .. n .. ' ' .. ms(t + args[4]))
  remember(p, t)
  return 1
end

-- leases: the server's replication id. Returns how long ago leases may have been
-- forgotten, in ms, or -1, then client, epoch, n of each record. They are by
-- another server that took over, and by a FLUSHALL under clients that live.
local function leases(keys, args)
  local p, t = keys[1], now()
  local known = redis.call('HMGET', p .. ':version', 'replid', 'replid-at', 'born-at')
  local since = -1
  if known[1] ~= args[1] then
    local at = known[1] and ms(t) or ''
    if redis.call('EXISTS', p .. ':version') == 1 then
      redis.call('HSET', p .. ':version', 'replid', args[1], 'replid-at', at)
    end
    if known[1] then since = 0 end
  elseif known[2] ~= '' then
    since = t - tonumber(known[2])
  end
  if known[3] then
    local age = math.max(t - tonumber(known[3]), 0)
    if since < 0 or age < since then since = age end
  end
  local out = {since}
  local all = redis.call('HGETALL', p .. ':leases')
  for i = 1, #all, 2 do
    local epoch, n, expires = string.match(all[i + 1], '^(%S+) (%d+) (%d+)$')
    if not epoch or tonumber(expires) < t then
      redis.call('HDEL', p .. ':leases', all[i])
    else
      out[#out + 1] = all[i]
      out[#out + 1] = epoch
      out[#out + 1] = n
    end
  end
  return out
end

-- Queues ----------------------------------------------------------------------

local function gone(p) return redis.call('EXISTS', p) == 0 end

local function create(keys, args)
  for _, key in ipairs({keys[1], keys[1] .. ':wake'}) do
    local r = redis.pcall('XGROUP', 'CREATE', key, GROUP, '0', 'MKSTREAM')
    if r.err and not string.find(r.err, 'BUSYGROUP', 1, true) then return r end
  end
  return 1
end

-- append: lane, number of the batch, window in ms, then of each message the ID to
-- deduplicate by or '', the number of arguments that its fields are, and those;
-- 0: the message is not to be stored any more. A batch that is sent again has as
-- many messages and the same number. The number is compared always, for a first
-- try can be held up on its way and arrive after the second. Returns 0 when the
-- queue is gone, 1 when all are stored, else a list of the index and the error of
-- each that is not.
local function append(keys, args)
  local p = keys[1]
  local lanes = p .. ':lanes'
  local known = redis.call('HGET', lanes, args[1])
  if known then
    local seq, failed = string.match(known, '^(%d+) %S+ ?(.*)$')
    if seq and tonumber(seq) >= tonumber(args[2]) then
      return failed == '' and 1 or cjson.decode(failed)
    end
  end
  local last, failed
  local i, index, count = 4, 0, #args
  while i <= count do
    local id, n = args[i], tonumber(args[i + 1])
    local key = id ~= '' and p .. ':id:' .. id
    if n > 0 and not (key and redis.call('EXISTS', key) == 1) then
      local r
      if n > 6000 then
        r = {err = 'ERR too many fields'}
      else
        r = redis.pcall('XADD', p, 'NOMKSTREAM', '*', unpack(args, i + 2, i + 1 + n))
      end
      if not r then return 0 end
      if type(r) == 'table' then
        failed = failed or {}
        failed[#failed + 1] = index
        failed[#failed + 1] = r.err
      else
        last = r
        if key then redis.call('SET', key, '', 'PX', args[3]) end
      end
    end
    i = i + 2 + n
    index = index + 1
  end
  if not last then
    if gone(p) then return 0 end
    last = ms(now())
  end
  local v = args[2] .. ' ' .. last
  if failed then v = v .. ' ' .. cjson.encode(failed) end
  redis.call('HSET', lanes, args[1], v)
  return failed or 1
end

-- forget drops the records of lanes that ended without a word. A batch is sent
-- again after any outage that people sit out.
local function forget(p, t)
  local lanes = redis.call('HGETALL', p .. ':lanes')
  for i = 1, #lanes, 2 do
    local at = string.match(lanes[i + 1], '^%d+ (%d+)')
    if not at or tonumber(at) + 3600000 < t then
      redis.call('HDEL', p .. ':lanes', lanes[i])
    end
  end
end

local function wake(p)
  redis.call('XADD', p .. ':wake', 'MAXLEN', '~', 100, '*', 'w', '1')
end

-- back gives entries of a consumer back without a change of their count.
local function back(p, ids)
  redis.call('XCLAIM', p, GROUP, READY, 0, unpack(ids, 1, #ids))
end

-- strike ends a consumer that is dead: everything it holds is ready again.
local function strike(p, consumer)
  local any = false
  while true do
    local pending = redis.call('XPENDING', p, GROUP, '-', '+', CHUNK, consumer)
    if #pending == 0 then break end
    local ids = {}
    for i, e in ipairs(pending) do ids[i] = e[1] end
    ids[#ids + 1] = 'JUSTID'
    back(p, ids)
    any = true
  end
  redis.call('XGROUP', 'DELCONSUMER', p, GROUP, consumer)
  redis.call('XGROUP', 'DELCONSUMER', p .. ':wake', GROUP, consumer)
  redis.call('ZREM', p .. ':consumers', consumer)
  return any
end

local function expire(p, t)
  for _, c in ipairs(redis.call('ZRANGEBYSCORE', p .. ':consumers', '-inf', '(' .. ms(t), 'LIMIT', 0, 16)) do
    strike(p, c)
  end
end

-- sweep strikes consumers of the group that are not among the living: a read
-- that was under way when its consumer was struck can leave one.
local function sweep(p, t)
  forget(p, t)
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', p, GROUP)) do
    local name
    for i = 1, #info, 2 do
      if info[i] == 'name' then name = info[i + 1] end
    end
    if name ~= READY and name ~= DELAYED and not redis.call('ZSCORE', p .. ':consumers', name) then
      strike(p, name)
    end
  end
end

local function due(p, t)
  while true do
    local ids = redis.call('ZRANGEBYSCORE', p .. ':delayed', '-inf', ms(t), 'LIMIT', 0, CHUNK)
    if #ids == 0 then return end
    redis.call('ZREM', p .. ':delayed', unpack(ids))
    ids[#ids + 1] = 'JUSTID'
    back(p, ids)
  end
end

-- settle: from args[i], the number of acknowledged entries and those, then id,
-- count and delay in ms of each entry that is given back; a delay of -1: the
-- application has not seen it, so that delivery does not count.
local function settle(p, consumer, args, i, t)
  local n = tonumber(args[i])
  if n > 0 then
    redis.call('XACK', p, GROUP, unpack(args, i + 1, i + n))
    redis.call('XDEL', p, unpack(args, i + 1, i + n))
  end
  local woken = false
  for j = i + n + 1, #args, 3 do
    local id, delay = args[j], tonumber(args[j + 2])
    local e = redis.call('XPENDING', p, GROUP, id, id, 1, consumer)[1]
    -- Another count: this is the second try of a settlement that has happened.
    if e and e[4] == tonumber(args[j + 1]) then
      if delay < 0 then
        redis.call('XCLAIM', p, GROUP, READY, 0, id, 'RETRYCOUNT', math.max(e[4] - 1, 0), 'JUSTID')
      elseif delay > 0 then
        redis.call('XCLAIM', p, GROUP, DELAYED, 0, id, 'JUSTID')
        redis.call('ZADD', p .. ':delayed', ms(t + delay), id)
      else
        redis.call('XCLAIM', p, GROUP, READY, 0, id, 'JUSTID')
      end
      woken = true
    end
  end
  if woken then wake(p) end
end

-- alive renews the lease of a consumer; false when it has run out: then the
-- consumer is struck, if nobody has done it yet, for it no longer counts on
-- what it held.
local function alive(p, consumer, lease, t)
  local deadline = redis.call('ZSCORE', p .. ':consumers', consumer)
  if not deadline then return false end
  if tonumber(deadline) < t then
    strike(p, consumer)
    return false
  end
  redis.call('ZADD', p .. ':consumers', ms(t + lease), consumer)
  return true
end

-- release gives back what a consumer holds but for the entries in keep, which
-- go to the consumer heir, or are given back counted when there is none.
local function release(p, consumer, kept, heir)
  local keep = {}
  for _, id in ipairs(kept) do keep[id] = true end
  local from = '-'
  while true do
    local pending = redis.call('XPENDING', p, GROUP, from, '+', CHUNK, consumer)
    if #pending == 0 then break end
    for _, e in ipairs(pending) do
      if not keep[e[1]] then
        redis.call('XCLAIM', p, GROUP, READY, 0, e[1], 'RETRYCOUNT', math.max(e[4] - 1, 0), 'JUSTID')
      else
        redis.call('XCLAIM', p, GROUP, heir or READY, 0, e[1], 'JUSTID')
      end
    end
    from = '(' .. pending[#pending][1]
  end
  strike(p, consumer)
  wake(p)
end

-- join: consumer, lease in ms, and, where it was struck, its name until then:
-- what a read that followed the blow took under that goes back uncounted.
local function join(keys, args)
  local p = keys[1]
  if gone(p) then return 0 end
  if args[3] then release(p, args[3], {}, nil) end
  redis.call('ZADD', p .. ':consumers', ms(now() + args[2]), args[1])
  redis.call('XGROUP', 'CREATECONSUMER', p, GROUP, args[1])
  return 1
end

-- extend: consumer, lease in ms. Returns 0 when the queue is gone, -1 when the
-- consumer was struck.
local function extend(keys, args)
  local p = keys[1]
  if gone(p) then return 0 end
  return alive(p, args[1], args[2], now()) and 1 or -1
end

-- settle: consumer, lease in ms, then as above. Returns as extend.
local function settle_only(keys, args)
  local p, t = keys[1], now()
  if gone(p) then return 0 end
  if not alive(p, args[1], args[2], t) then return -1 end
  settle(p, args[1], args, 3, t)
  return 1
end

-- attend is what a consumer does before it reads: args are the consumer, lease
-- in ms, 1 to sweep, 1 after a wake-up, room, then as settle. Returns what extend
-- returns, and how long to wait at most for what comes by time.
local function attend(p, args, t)
  if gone(p) then return 0 end
  local consumer = args[1]
  if not alive(p, consumer, args[2], t) then return -1 end
  settle(p, consumer, args, 6, t)
  if args[3] == '1' then sweep(p, t) end
  if args[4] == '1' then
    redis.call('XGROUP', 'DELCONSUMER', p .. ':wake', GROUP, consumer)
    redis.call('XTRIM', p .. ':wake', 'MAXLEN', 0)
  end
  due(p, t)
  expire(p, t)
  local wait = 1000
  local next = redis.call('ZRANGE', p .. ':delayed', 0, 0, 'WITHSCORES')[2]
  if next then wait = math.min(wait, tonumber(next) - t) end
  next = redis.call('ZRANGE', p .. ':consumers', 0, 0, 'WITHSCORES')[2]
  if next then wait = math.min(wait, tonumber(next) - t + 1) end
  return 1, math.max(wait, 1)
end

-- left is 1 when something that was given back waits.
local function left(p)
  return #redis.call('XPENDING', p, GROUP, '-', '+', 1, READY)
end

-- tend: as attend. Goes before an XREADGROUP in one pipeline, which is far
-- cheaper than to pass entries through here. Returns what extend returns when
-- that is not 1, else {how long to wait at most, 1 if something that was given
-- back waits: it goes before what XREADGROUP brings}.
local function tend(keys, args)
  local p = keys[1]
  local state, wait = attend(p, args, now())
  if state ~= 1 then return state end
  return {wait, left(p)}
end

-- fetch: as attend. Takes what was given back first. Returns what extend returns
-- when that is not 1, else {as tend, the counts of the redelivered entries,
-- these, new ones}.
local function fetch(keys, args)
  local p, consumer = keys[1], args[1]
  local state, wait = attend(p, args, now())
  if state ~= 1 then return state end
  local room = tonumber(args[5])
  local counts, old, new = {}, {}, {}
  if room > 0 then
    local pending = redis.call('XPENDING', p, GROUP, '-', '+', room, READY)
    local taken = #pending
    for from = 1, taken, CHUNK do
      local ids, count = {}, {}
      for i = from, math.min(from + CHUNK - 1, taken) do
        ids[#ids + 1] = pending[i][1]
        count[pending[i][1]] = pending[i][4] + 1
      end
      for _, e in ipairs(redis.call('XCLAIM', p, GROUP, consumer, 0, unpack(ids))) do
        old[#old + 1] = e
        counts[#counts + 1] = count[e[1]]
      end
    end
    if taken < room then
      local r = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', room - taken, 'STREAMS', p, '>')
      if r then new = r[1][2] end
    end
  end
  local waits = left(p)
  if waits > 0 then wake(p) end
  return {wait, waits, counts, old, new}
end

-- rename: old name, new name, lease in ms, then the entries that it knows to
-- hold. What else the old one got was in replies that were lost; reads under
-- the old name that arrive late are refused.
local function rename(keys, args)
  local p = keys[1]
  if gone(p) then return 0 end
  local t = now()
  if alive(p, args[2], args[3], t) then return 1 end
  if not alive(p, args[1], args[3], t) then return -1 end
  redis.call('ZADD', p .. ':consumers', ms(t + args[3]), args[2])
  local kept = {}
  for i = 4, #args do kept[#kept + 1] = args[i] end
  release(p, args[1], kept, args[2])
  return 1
end

-- leave: consumer, then the entries that the application has seen.
local function leave(keys, args)
  local p = keys[1]
  if gone(p) then return 0 end
  if not redis.call('ZSCORE', p .. ':consumers', args[1]) then return -1 end
  local kept = {}
  for i = 2, #args do kept[#kept + 1] = args[i] end
  release(p, args[1], kept, nil)
  return 1
end

local function count(p)
  local total, held = redis.call('XLEN', p), 0
  local summary = redis.call('XPENDING', p, GROUP)
  for _, c in ipairs(summary[4] or {}) do
    if c[1] ~= READY and c[1] ~= DELAYED then held = held + tonumber(c[2]) end
  end
  return math.max(total - held, 0), held
end

-- inspect: ready, unsettled, consumers; 0 when the queue is gone.
local function inspect(keys, args)
  local p, t = keys[1], now()
  if gone(p) then return 0 end
  expire(p, t)
  local ready, held = count(p)
  return {ready, held, redis.call('ZCARD', p .. ':consumers')}
end

local function purge(keys, args)
  local p, t = keys[1], now()
  if gone(p) then return {-1} end
  expire(p, t)
  local ready, held = count(p)
  for _, owner in ipairs({READY, DELAYED}) do
    while true do
      local pending = redis.call('XPENDING', p, GROUP, '-', '+', CHUNK, owner)
      if #pending == 0 then break end
      local ids = {}
      for i, e in ipairs(pending) do ids[i] = e[1] end
      redis.call('XACK', p, GROUP, unpack(ids))
      redis.call('XDEL', p, unpack(ids))
    end
  end
  redis.call('DEL', p .. ':delayed')
  if held == 0 then
    redis.call('XTRIM', p, 'MAXLEN', 0)
    return {ready}
  end
  local last = '0'
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', p)) do
    local g = {}
    for i = 1, #info, 2 do g[info[i]] = info[i + 1] end
    if g['name'] == GROUP then last = g['last-delivered-id'] end
  end
  while true do
    local entries = redis.call('XRANGE', p, '(' .. last, '+', 'COUNT', 100)
    if #entries == 0 then break end
    local ids = {}
    for i, e in ipairs(entries) do ids[i] = e[1] end
    redis.call('XDEL', p, unpack(ids))
  end
  return {ready}
end

-- delete: 1 if unused, 1 if empty. Returns 0 when a condition does not hold.
local function delete(keys, args)
  local p = keys[1]
  if not gone(p) then
    expire(p, now())
    if args[1] == '1' and redis.call('ZCARD', p .. ':consumers') > 0 then return 0 end
    if args[2] == '1' and count(p) > 0 then return 0 end
  end
  redis.call('UNLINK', p, p .. ':wake', p .. ':delayed', p .. ':consumers', p .. ':lanes')
  return 1
end

local function register(name, callback, flags)
  redis.register_function{function_name = 'polymq1_' .. name, callback = callback, flags = flags}
end

-- What takes messages away must work when the memory is full.
register('revision', function() return @REVISION@ end, {'no-writes', 'allow-oom'})
register('load', load, {'allow-oom'})
register('apply', apply, {})
register('renew', renew, {'allow-oom'})
register('leases', leases, {'allow-oom'})
register('create', create, {})
register('append', append, {})
register('join', join, {'allow-oom'})
register('extend', extend, {'allow-oom'})
register('settle', settle_only, {'allow-oom'})
register('tend', tend, {'allow-oom'})
register('fetch', fetch, {'allow-oom'})
register('rename', rename, {'allow-oom'})
register('leave', leave, {'allow-oom'})
register('inspect', inspect, {'allow-oom'})
register('purge', purge, {'allow-oom'})
register('delete', delete, {'allow-oom'})
