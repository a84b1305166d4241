-- Moves lines of an hour out of the ledger into the base, or back, if everything is what it was taken for.
-- store_id, hour, place of the hour in the change feed, leaving or returning, how many rows of the base, how many lines, then for each
-- row of the base: row, what it is or nothing, what it will be; for each line: row, line; then the records' places in the change feed
-- OK epoch | CHANGED
beat()
local epoch, no = guard(ARGV[1], '')
if no then
  return no
end
local lines, base, feed = key('u:' .. ARGV[2]), key('u:base'), key('u:changed')
local leaving = ARGV[4] == 'leaving'
if string.match(redis.call('HGET', key('u:folds'), ARGV[2]) or '', '^%a*') ~= ARGV[4] then
  return { 'CHANGED' }
end
local first_line = 7 + 3 * tonumber(ARGV[5])
local last_line = first_line + 2 * tonumber(ARGV[6]) - 1
for at = 7, first_line - 1, 3 do
  if (redis.call('HGET', base, ARGV[at]) or '') ~= ARGV[at + 1] then
    return { 'CHANGED' }
  end
end
for at = first_line, last_line, 2 do
  if redis.call('HGET', lines, ARGV[at]) ~= (leaving and ARGV[at + 1]) then
    return { 'CHANGED' }
  end
end
local newest = 0
local function forget(place)
  newest = math.max(newest, tonumber(redis.call('ZSCORE', feed, place) or '0'))
  redis.call('ZREM', feed, place)
end
for at = 7, first_line - 1, 3 do
  redis.call('HSET', base, ARGV[at], ARGV[at + 2])
end
local number = redis.call('INCR', key('u:merges'))
for at = first_line, last_line, 2 do
  if leaving then
    redis.call('HDEL', lines, ARGV[at])
    forget(ARGV[at])
  else
    redis.call('HSET', lines, ARGV[at], ARGV[at + 1])
    redis.call('ZADD', feed, number, ARGV[at])
  end
end
if leaving then
  for at = last_line + 1, #ARGV do
    forget(ARGV[at])
  end
  -- Whoever reads on behind the hour's own place has still to hear of what was newer.
  if newest > tonumber(redis.call('ZSCORE', feed, ARGV[3]) or '0') then
    redis.call('ZADD', feed, number, ARGV[3])
  end
else
  redis.call('ZADD', key('u:hours'), ARGV[2], ARGV[2])
end
redis.call('SET', key('u:moved'), number)
return { 'OK', epoch }
