-- Stands at the head of every script. All keys begin with {tg}, so that they are in one slot.
local function key(part)
  return '{tg}:' .. part
end

-- One that follows another server has the same replid, and is behind. The error has a connection to it given up.
local function replid_now()
  local told = redis.call('INFO', 'replication')
  if string.find(told, 'role:slave', 1, true) then
    error({ err = 'READONLY this server follows another one' })
  end
  return string.match(told, 'master_replid:(%x+)')
end

-- The next change of usage gets a greater number than any before, also than those that another server gave and lost.
local function leap()
  local time = redis.call('TIME')
  -- Two for each microsecond: nobody makes so many changes, and 2^53 is far away.
  local now = tonumber(time[1]) * 2097152 + tonumber(time[2]) * 2
  local known = tonumber(redis.call('GET', key('u:merges')) or '0')
  redis.call('SET', key('u:merges'), string.format('%.0f', math.max(known, now)))
end

