-- Reading messages.

-- attend is what a consumer does before it reads: args are the consumer, lease
-- in ms, 1 to look for what others left, 1 after a wake-up, how many it takes, then,
-- from args[i], as settle.
-- Returns what extend returns, and how long to wait at most for what comes by time.
local function attend(p, args, i, t)
  if gone(p) then return 0 end
  local consumer = args[1]
  if not alive(p, consumer, args[2], t) then return -1 end
  settle(p, consumer, args, i, t)
  local any = false
  if args[3] == '1' then
    forget(p, t)
    any = strike_strangers(p)
  end
  if args[4] == '1' then
    redis.call('XGROUP', 'DELCONSUMER', p .. ':wake', GROUP, consumer)
    redis.call('XTRIM', p .. ':wake', 'MAXLEN', 0)
  end
  any = due(p, t) or any
  any = expire(p, t) or any
  if rules then
    absorb(p)
    if rules.changed then trim(p) end
  end
  -- A consumer that takes nothing leaves it to others, who are to hear of it.
  if any and args[5] == '0' then wake(p) end
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

-- claim delivers pending entries, and appends them and the counts of their
-- deliveries to the lists.
local function claim(p, consumer, pending, counts, entries)
  for from = 1, #pending, CHUNK do
    local ids, count = {}, {}
    for i = from, math.min(from + CHUNK - 1, #pending) do
      ids[#ids + 1] = pending[i][1]
      count[pending[i][1]] = pending[i][4] + 1
    end
    for _, e in ipairs(redis.call('XCLAIM', p, GROUP, consumer, 0, unpack(ids))) do
      entries[#entries + 1] = e
      counts[#counts + 1] = count[e[1]]
      if rules then resize(e[2], -1) end
    end
  end
  if rules and #pending > 0 then recount(level_named(pending[1][2]), -#pending) end
end

-- tend: as attend. Goes before an XREADGROUP in one pipeline, which is far
-- cheaper than to pass entries through here. Returns what extend returns when
-- that is not 1, else {how long to wait at most, 1 if something that was given
-- back waits: it goes before what XREADGROUP brings}.
local function tend(keys, args)
  local p = keys[1]
  local state, wait = attend(p, args, 6, now())
  if state ~= 1 then return state end
  return {wait, left(p)}
end

-- fetch: as attend. Takes what was given back first. Returns what extend returns
-- when that is not 1, else {as tend, the counts of the redelivered entries,
-- these, new ones}.
local function fetch(keys, args)
  local p, consumer = keys[1], args[1]
  local state, wait = attend(p, args, 6, now())
  if state ~= 1 then return state end
  local room = tonumber(args[5])
  local counts, old, new = {}, {}, {}
  if room > 0 then
    local pending = redis.call('XPENDING', p, GROUP, '-', '+', room, READY)
    claim(p, consumer, pending, counts, old)
    if #pending < room then
      local r = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', room - #pending, 'STREAMS', p, '>')
      if r then new = r[1][2] end
    end
  end
  local waits = left(p)
  if waits > 0 then wake(p) end
  return {wait, waits, counts, old, new}
end

-- fetch_by_rules: as fetch, of a queue with rules, also of a consumer that takes
-- nothing; before what is settled, for how many it has room. Returns one element
-- more: '', or, where another consumer is the active one, the ID after which the
-- stream of those who stand by tells of a change.
local function fetch_by_rules(keys, args)
  local p, consumer = keys[1], args[1]
  local state, wait = attend(p, args, 7, now())
  if state ~= 1 then return state end
  if rules.single and active(p) ~= consumer then
    local last = redis.call('XREVRANGE', p .. ':standby', '+', '-', 'COUNT', 1)[1]
    return {wait, 0, {}, {}, {}, last and last[1] or '0'}
  end
  local most = tonumber(args[5])
  local counts, entries, left = {}, {}, most
  for level in ready_levels(p) do
    if left == 0 then break end
    local pending = redis.call('XPENDING', p, GROUP, '-', '+', left, ready_at(level))
    claim(p, consumer, pending, counts, entries)
    left = left - #pending
  end
  if rules.limited then promise(p, consumer, tonumber(args[6]) - (most - left)) end
  local waits = ready(p) > 0 and 1 or 0
  if waits > 0 and not rules.single then wake(p) end
  return {wait, waits, counts, entries, {}, ''}
end
