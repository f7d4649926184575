-- The consumers of a queue and what they hold.

local function gone(p) return redis.call('EXISTS', p) == 0 end

local function wake(p)
  redis.call('XADD', p .. ':wake', 'MAXLEN', '~', 100, '*', 'w', '1')
end

-- back makes entries ready that are held, a chunk at most; without a count they
-- keep their own.
local function back(p, ids, count)
  for level, ids in pairs(rules and sorted(p, ids) or {[0] = ids}) do
    local command = {'XCLAIM', p, GROUP, ready_at(level), 0}
    for _, id in ipairs(ids) do command[#command + 1] = id end
    command[#command + 1] = 'JUSTID'
    if count then
      command[#command + 1] = 'RETRYCOUNT'
      command[#command + 1] = count
    end
    redis.call(unpack(command))
  end
end

-- uncounted gives back what was read and not seen by anybody.
local function uncounted(p, pending)
  local by_count = {}
  for _, e in ipairs(pending) do
    local count = math.max(e[4] - 1, 0)
    by_count[count] = by_count[count] or {}
    table.insert(by_count[count], e[1])
  end
  for count, ids in pairs(by_count) do back(p, ids, count) end
end

-- strike ends a consumer that is dead: everything it holds is ready again. What it
-- read when its lease had ended does not count: it shows that to nobody.
local function strike(p, consumer)
  local t, lease = now(), tonumber(redis.call('ZSCORE', p .. ':consumers', consumer) or 0)
  local any = false
  while true do
    local pending = redis.call('XPENDING', p, GROUP, '-', '+', CHUNK, consumer)
    if #pending == 0 then break end
    local ids, late = {}, {}
    for _, e in ipairs(pending) do
      if t - e[3] > lease then
        late[#late + 1] = e
      else
        ids[#ids + 1] = e[1]
      end
    end
    uncounted(p, late)
    if #ids > 0 then back(p, ids) end
    any = true
  end
  -- It is one of the living until all else is done: a call can end in between where keys
  -- are just being moved, and the next one is to begin anew.
  if rules then retire(p, consumer) end
  redis.call('XGROUP', 'DELCONSUMER', p, GROUP, consumer)
  redis.call('XGROUP', 'DELCONSUMER', p .. ':wake', GROUP, consumer)
  if redis.call('ZSCORE', p .. ':consumers', consumer) then
    if redis.call('ZCARD', p .. ':consumers') == 1 then
      redis.call('HSET', p .. ':usage', 'since', ms(t))
    end
    redis.call('ZREM', p .. ':consumers', consumer)
  end
  return any
end

-- expire strikes those whose lease has run out, and ends what else time ends.
local function expire(p, t)
  local any = false
  for _, c in ipairs(redis.call('ZRANGEBYSCORE', p .. ':consumers', '-inf', '(' .. ms(t), 'LIMIT', 0, 16)) do
    any = strike(p, c) or any
  end
  if rules then lapse(p, t) end
  return any
end

-- strike_strangers strikes consumers of the group that are not among the living:
-- a read that was under way when its consumer was struck can leave one.
local function strike_strangers(p)
  local any = false
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', p, GROUP)) do
    local name
    for i = 1, #info, 2 do
      if info[i] == 'name' then name = info[i + 1] end
    end
    if string.sub(name, 1, 1) ~= '.' and not redis.call('ZSCORE', p .. ':consumers', name) then
      any = strike(p, name) or any
    end
  end
  return any
end

-- due makes ready what was given back with a delay that is over, and says whether
-- there is more of it: so many can be due at one moment that a call for all of them
-- would hold up everybody.
local function due(p, t)
  local ids = redis.call('ZRANGEBYSCORE', p .. ':delayed', '-inf', ms(t), 'LIMIT', 0, CHUNK)
  if #ids == 0 then return false, false end
  redis.call('ZREM', p .. ':delayed', unpack(ids))
  back(p, ids)
  return true, #ids == CHUNK
end

-- settle: from args[i], the number of acknowledged entries and those, then id,
-- count and delay in ms of each entry that is given back; a delay of -1: the
-- application has not seen it, so that delivery does not count.
local function settle(p, consumer, args, i, t)
  local n = tonumber(args[i])
  if n > 0 then
    redis.call('XACK', p, GROUP, unpack(args, i + 1, i + n))
    redis.call('XDEL', p, unpack(args, i + 1, i + n))
    if rules then widen(p, consumer, n) end
  end
  local woken = false
  for j = i + n + 1, #args, 3 do
    local id, delay = args[j], tonumber(args[j + 2])
    local e = redis.call('XPENDING', p, GROUP, id, id, 1, consumer)[1]
    -- Another count: this is the second try of a settlement that has happened.
    if e and e[4] == tonumber(args[j + 1]) then
      if delay < 0 then
        uncounted(p, {e})
      elseif delay > 0 then
        -- In a slot that is just being moved a key that is not there yet cannot be made:
        -- what would be lost without it comes after it.
        redis.call('ZADD', p .. ':delayed', ms(t + delay), id)
        redis.call('XCLAIM', p, GROUP, DELAYED, 0, id, 'JUSTID')
      else
        back(p, {id})
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
    if strike(p, consumer) then wake(p) end
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
    local unseen, seen = {}, {}
    for _, e in ipairs(pending) do
      if not keep[e[1]] then
        unseen[#unseen + 1] = e
      elseif heir then
        redis.call('XCLAIM', p, GROUP, heir, 0, e[1], 'JUSTID')
      else
        seen[#seen + 1] = e[1]
      end
    end
    uncounted(p, unseen)
    if #seen > 0 then back(p, seen) end
    from = '(' .. pending[#pending][1]
  end
  strike(p, consumer)
  wake(p)
end

-- join: consumer, lease in ms, and, where it was struck, its name until then, else
-- '': what a read that followed the blow took under that goes back uncounted; and for
-- how many it has room before its first fetch says so.
local function join(keys, args)
  local p = keys[1]
  if gone(p) then return 0 end
  if args[3] and args[3] ~= '' then release(p, args[3], {}, nil) end
  redis.call('ZADD', p .. ':consumers', ms(now() + args[2]), args[1])
  redis.call('XGROUP', 'CREATECONSUMER', p, GROUP, args[1])
  redis.call('HSET', p .. ':usage', 'used', 1)
  if rules and rules.single then
    redis.call('ZADD', p .. ':turns', redis.call('HINCRBY', p .. ':rules', 'turn', 1), args[1])
  end
  if rules and rules.limited and args[4] then promise(p, args[1], tonumber(args[4])) end
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

-- rename: old name, new name, lease in ms, then the entries that it knows to
-- hold. What else the old one got was in replies that were lost; reads under
-- the old name that arrive late are refused.
local function rename(keys, args)
  local p = keys[1]
  if gone(p) then return 0 end
  local t = now()
  if not alive(p, args[2], args[3], t) then
    if not alive(p, args[1], args[3], t) then return -1 end
    redis.call('ZADD', p .. ':consumers', ms(t + args[3]), args[2])
  elseif not redis.call('ZSCORE', p .. ':consumers', args[1]) then
    return 1 -- else a call before this one ended half way, as strike says
  end
  if rules and rules.single then
    local turn = redis.call('ZSCORE', p .. ':turns', args[1])
    if turn then redis.call('ZADD', p .. ':turns', turn, args[2]) end
  end
  local kept = {}
  for i = 4, #args do kept[#kept + 1] = args[i] end
  release(p, args[1], kept, args[2])
  return 1
end

-- withdraw: consumer. It takes no more, though it still holds something.
local function withdraw(keys, args)
  local p = keys[1]
  if gone(p) then return 0 end
  retire(p, args[1])
  wake(p)
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
