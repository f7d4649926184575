-- The functions that clients call.

local function register(name, callback, flags)
  redis.register_function{function_name = 'polymq1_' .. name, flags = flags, callback = function(keys, args)
    rules = nil
    return callback(keys, args)
  end}
end

-- register_rules: of queues with rules.
local function register_rules(name, callback, flags)
  redis.register_function{function_name = 'polymq1_rules_' .. name, flags = flags, callback = function(keys, args)
    local p = keys[1]
    rules = read_rules(p)
    local answer = callback(keys, args)
    if rules and not gone(p) then close_rules(p) end
    return answer
  end}
end

local function register_both(name, callback, flags)
  register(name, callback, flags)
  register_rules(name, callback, flags)
end

-- What takes messages away must work when the memory is full.
register('revision', function() return @REVISION@ end, {'no-writes', 'allow-oom'})
register('load', load, {'allow-oom'})
register('apply', apply, {})
register('remove', apply, {'allow-oom'}) -- for changes that only remove
register('renew', renew, {'allow-oom'})
register('leases', leases, {'allow-oom'})
register('lead', lead, {'allow-oom'})
register_both('create', create, {})
register_both('append', append, {})
register_both('join', join, {'allow-oom'})
register_both('extend', extend, {'allow-oom'})
register_both('settle', settle_only, {'allow-oom'})
register('tend', tend, {'allow-oom'})
register('fetch', fetch, {'allow-oom'})
register_rules('fetch', fetch_by_rules, {'allow-oom'})
register_rules('withdraw', withdraw, {'allow-oom'})
register_both('rename', rename, {'allow-oom'})
register_both('leave', leave, {'allow-oom'})
register_both('inspect', inspect, {'allow-oom'})
register_both('usage', usage, {'allow-oom'})
register_both('touch', touch, {'allow-oom'})
register_both('sweep', sweep, {'allow-oom'})
register_both('drop', drop, {'allow-oom'})
register_both('purge', purge, {'allow-oom'})
register_both('delete', delete, {'allow-oom'})
