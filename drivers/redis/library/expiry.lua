-- What a queue gives up by itself.

-- last_delivered is the ID up to which the stream was read.
local function last_delivered(p)
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', p)) do
    local g = {}
    for i = 1, #info, 2 do g[info[i]] = info[i + 1] end
    if g['name'] == GROUP then return g['last-delivered-id'] end
  end
  return '0'
end

-- last_generated is the ID of the newest entry that the stream ever had.
local function last_generated(p)
  local info = redis.call('XINFO', 'STREAM', p)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

-- head is the entry that would be delivered next, and its level; fresh: it was
-- never read.
local function head(p)
  if rules then
    local id, level = in_order(p, 1)()
    return id and (entry(p, id) or {id, {}}), level
  end
  local e = redis.call('XPENDING', p, GROUP, '-', '+', 1, READY)[1]
  if e then return entry(p, e[1]) or {e[1], {}}, 0 end
  return redis.call('XRANGE', p, '(' .. last_delivered(p), '+', 'COUNT', 1)[1], 0, true
end

-- weight is how many bytes an entry is, about.
local function weight(e)
  local n = 0
  for _, field in ipairs(e[2]) do n = n + #field end
  return n
end

-- over is when the time of an entry is over; nil: never. The queue's TTL is 0
-- where it has none, own is 1 where those of messages count.
local function over(e, ttl, own)
  ttl = ttl > 0 and ttl or nil
  if own == '1' then
    for i = 1, #e[2], 2 do
      local n = e[2][i] == 'ttl' and string.match(e[2][i + 1], '^%d+$')
      if n and tonumber(n) > 0 then ttl = math.min(ttl or tonumber(n), tonumber(n)) end
    end
  end
  return ttl and tonumber(string.match(e[1], '^%d+')) + ttl
end

-- A sweep reads the bodies of what it gives up, so their bytes bound it too.
local SWEPT = 4 * 1024 * 1024

-- sweep: most, the queue's TTL in ms or 0, 1 where messages' own count, 1 where
-- there are dead letters, the lease of what it returns in ms. Returns 0 when the
-- queue is gone, else {1 if there may be more at once, when the time of the head is
-- over or 0, 1 if nothing is ready, the reasons of the entries, counts, entries}.
local function sweep(keys, args)
  local p, t = keys[1], now()
  if gone(p) then return 0 end
  local most, ttl, own, dead, lease = tonumber(args[1]), tonumber(args[2]), args[3], args[4] == '1', args[5]
  local given = expire(p, t)
  local returned, later = due(p, t)
  if rules then
    absorb(p)
    if rules.changed then trim(p) end
  end
  local n, bytes, empty, next = 0, 0, 0, 0
  while n < most and bytes < SWEPT do
    local e, level, fresh = head(p)
    if not e then
      empty = redis.call('ZCARD', p .. ':delayed') == 0 and 1 or 0
      break
    end
    local at = over(e, ttl, own)
    if not at or at > t then
      next = at or 0
      break
    end
    if fresh and dead then
      redis.call('XCLAIM', p, GROUP, EXPIRED, 0, e[1], 'TIME', 0, 'RETRYCOUNT', 0, 'JUSTID', 'FORCE', 'LASTID', e[1])
    else
      let_go(p, {e[1]}, EXPIRED, dead)
    end
    if rules then
      resize(e[2], -1)
      recount(level, -1)
    end
    n = n + 1
    bytes = bytes + weight(e)
  end
  local reasons, counts, entries = {}, {}, {}
  local more = n == most or bytes >= SWEPT or later
  bytes = 0
  for _, reason in ipairs({MAXLEN, EXPIRED}) do
    local room = most - #entries
    local pending = redis.call('XPENDING', p, GROUP, 'IDLE', lease, '-', '+', room + 1, reason)
    more = more or #pending > room
    for i = 1, math.min(#pending, room) do
      local id = pending[i][1]
      local e = entry(p, id)
      bytes = bytes + (e and weight(e) or 0)
      if bytes > SWEPT and #entries > 0 then
        more = true
        break
      end
      if e then
        redis.call('XCLAIM', p, GROUP, reason, 0, id, 'JUSTID')
        reasons[#reasons + 1] = string.sub(reason, 2)
        counts[#counts + 1] = pending[i][4]
        entries[#entries + 1] = e
      else
        redis.call('XACK', p, GROUP, id)
      end
    end
  end
  if given or returned then wake(p) end
  return {more and 1 or 0, next, empty, reasons, counts, entries}
end

-- drop: entries that sweep returned.
local function drop(keys, args)
  local p = keys[1]
  if gone(p) then return 0 end
  for i = 1, #args, CHUNK do
    local to = math.min(i + CHUNK - 1, #args)
    redis.call('XACK', p, GROUP, unpack(args, i, to))
    redis.call('XDEL', p, unpack(args, i, to))
  end
  return 1
end
