-- Puts rows of a backup where they belong.
-- what everybody is told meanwhile, then for each row: what to do, table or hour, key, value
--   p put, o put into a table that is walked, l put a way from a digest, u put a line of usage, b put a row of the base,
--   f put where an hour stands, m put a mark of a flush
-- OK | STOPPED, where another restore has begun
beat()
if redis.call('GET', key('frozen')) ~= ARGV[1] then
  return { 'STOPPED' }
end
local merge = redis.call('INCR', key('u:merges'))
for at = 2, #ARGV, 4 do
  local what, name, row, value = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if what == 'p' or what == 'o' then
    redis.call('HSET', key('t:' .. name), row, value)
    if what == 'o' then
      redis.call('ZADD', key('z:' .. name), 0, row)
    end
  elseif what == 'l' then
    redis.call('HSET', key('ways'), row, value)
  elseif what == 'u' then
    redis.call('HSET', key('u:' .. name), row, value)
    redis.call('ZADD', key('u:hours'), name, name)
    redis.call('ZADD', key('u:changed'), merge, row)
  elseif what == 'b' or what == 'f' then
    redis.call('HSET', key(what == 'b' and 'u:base' or 'u:folds'), row, value)
    redis.call('SET', key('u:moved'), merge)
    if what == 'f' then
      redis.call('ZADD', key('u:changed'), merge, struct.pack('>I4', tonumber(row)))
    end
  else
    redis.call('HSET', key('u:marks'), row, value)
  end
end
return { 'OK' }
