-- Storing messages.

-- append: the batch's record; in one its number, that of a batch under way that must be
-- stored before it, 0 where there is none, and the lane's other record; window in ms,
-- then of each message the ID to deduplicate by or '', the number of arguments that its
-- fields are, and those; 0: the message is not to be stored any more. A batch that is
-- sent again has as many messages and the same number; there are two records for each
-- lane, used in turn, as two batches can be under way. The numbers are compared always,
-- for a first try can be held up on its way and arrive after the second, or after a
-- later batch when its sender has given it up. Returns 0 when the queue is gone, -1
-- when the one before is not stored or a later one is, 1 when all are, else a list of
-- the index and the error of each that is not.
local function append(keys, args)
  local p = keys[1]
  local lanes = p .. ':lanes'
  local number, before, other = string.match(args[2], '^(%d+) ?(%d*) ?(.*)$')
  local records = redis.call('HMGET', lanes, args[1], other)
  local known = records[1]
  if known then
    local seq, failed = string.match(known, '^(%d+) %S+ ?(.*)$')
    if seq and tonumber(seq) >= tonumber(number) then
      redis.call('HSET', lanes, args[1], known) -- who waits for replicas waits for the last write
      return failed == '' and 1 or cjson.decode(failed)
    end
  end
  local at = tonumber(string.match(records[2] or '', '^%d+') or 0)
  if at < (tonumber(before) or 0) or at > tonumber(number) then return gone(p) and 0 or -1 end
  if rules then
    if gone(p) then return 0 end
    absorb(p)
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
      elseif rules and full(p, #args[i + 1 + n]) then
        r = {err = 'POLYMQFULL the queue is full'}
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
        if rules then
          place(p, r, {unpack(args, i + 2, i + 1 + n)}, true)
          -- One trim does for the batch. By bytes and levels it could drop more than one
          -- after each entry, which is done where it has not to pass what is promised.
          rules.changed = true
          if rules.bytes and rules.levels > 0 and promised(p) == 0 then trim(p) end
        end
      end
    end
    i = i + 2 + n
    index = index + 1
  end
  if not last then
    if gone(p) then return 0 end
    last = ms(now())
  elseif rules then
    wake(p)
  end
  local v = number .. ' ' .. last
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
