#!lua name=polymq1

-- The steps of polymq that must be atomic. KEYS[1] is always the prefix of a
-- namespace, polymq:{ns}, or of a queue, polymq:{ns:incarnation}, which is also
-- the queue's stream. Other keys are that prefix and a suffix, so they are in
-- the same hash slot. docs/WIRE.md describes what is stored.

local GROUP = 'polymq'
local CHUNK = 1000 -- unpack takes no more than some thousands

-- Members of the group that are no consumers begin with a dot.
local READY = '.ready'     -- holds what was given back, in the order of the stream
local DELAYED = '.delayed' -- holds what was given back with a delay
local EXPIRED = '.expired' -- holds dead letters to be
local MAXLEN = '.maxlen'   -- also

local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function ms(n) return string.format('%.0f', n) end
