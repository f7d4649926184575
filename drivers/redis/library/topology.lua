-- The topology and those who route by it.

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

local function replid()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end

-- load: a fresh epoch for the case that there is none, then the version known.
-- Only a version that the log knows has a difference to the present one: a
-- failover or a restored file can have taken back the one that a client saw.
local function load(keys, args)
  local p = keys[1]
  local epoch, n = version(p)
  if not epoch then
    epoch, n = args[1], '0'
    redis.call('HSET', p .. ':version', 'epoch', epoch, 'n', n, 'wire', '1', 'replid', replid(), 'replid-at', '')
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

-- leases: none; older programs name the replication id. Returns how long ago leases
-- may have been forgotten, in ms, then client, epoch, n of each record. They are by
-- a restart, by another server that took over, and by a FLUSHALL under clients that
-- live. The server says by itself who it is: what it was asked before may have been
-- answered by the one before it.
local function leases(keys, args)
  local p, t = keys[1], now()
  local id = replid()
  local since = 1000 * string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)')
  local known = redis.call('HMGET', p .. ':version', 'replid', 'replid-at', 'born-at')
  if known[1] ~= id then
    local at = known[1] and ms(t) or ''
    if redis.call('EXISTS', p .. ':version') == 1 then
      redis.call('HSET', p .. ':version', 'replid', id, 'replid-at', at)
    end
    if known[1] then since = 0 end
  elseif known[2] ~= '' then
    since = math.min(since, t - tonumber(known[2]))
  end
  if known[3] then
    local age = math.max(t - tonumber(known[3]), 0)
    since = math.min(since, age)
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

-- lead: client, term in ms. Returns 1 when the client leads the namespace; with a
-- term of 0 it does no longer.
local function lead(keys, args)
  local key = keys[1] .. ':leader'
  local leader = redis.call('GET', key)
  if leader and leader ~= args[1] then return 0 end
  if args[2] ~= '0' then
    redis.call('SET', key, args[1], 'PX', args[2])
    return 1
  end
  redis.call('DEL', key)
  return 0
end
