-- Takes usage in: of each number the greater one stays. Numbers are 20 digits, compared as text: Lua's own end at 2^53.
-- store_id, hour, key of the mark, sequence, watermark, how many numbers a line has, which of them gathers bits, then rows and lines
-- OK | FULL
-- {tg}:u:HOUR hash: lines of an hour by row;  {tg}:u:hours zset;  {tg}:u:marks hash;  {tg}:u:changed zset: rows by the number of
-- the merge that changed them last
beat()
local epoch, no = guard(ARGV[1], '')
if no then
  return no
end
local memory = redis.call('INFO', 'memory')
local used = tonumber(string.match(memory, 'used_memory:(%d+)'))
local most = tonumber(string.match(memory, 'maxmemory:(%d+)'))
if most > 0 and used > most * 0.75 then
  return { 'FULL' }
end
local function digits(number)
  return string.sub(string.format('%020.0f', number), -20)
end
local lines, numbers, gathers = key('u:' .. ARGV[2]), tonumber(ARGV[6]), tonumber(ARGV[7])
local sequence = redis.call('INCR', key('u:merges'))
for at = 8, #ARGV, 2 do
  local row, line = ARGV[at], ARGV[at + 1]
  local known = redis.call('HGET', lines, row)
  if known and known ~= line then
    local merged = {}
    for i = 1, numbers do
      local old, new = string.sub(known, i * 20 - 19, i * 20), string.sub(line, i * 20 - 19, i * 20)
      if i == gathers and old ~= new then
        merged[i] = digits(bit.bor(tonumber(old), tonumber(new)))
      else
        merged[i] = old > new and old or new
      end
    end
    line = table.concat(merged)
  end
  if line ~= known then
    redis.call('HSET', lines, row, line)
    redis.call('ZADD', key('u:changed'), sequence, row)
  end
end
redis.call('ZADD', key('u:hours'), ARGV[2], ARGV[2])
local known = redis.call('HGET', key('u:marks'), ARGV[3]) or ARGV[4] .. ARGV[5]
local seq, watermark = string.sub(known, 1, 20), string.sub(known, 21)
redis.call('HSET', key('u:marks'), ARGV[3],
  (seq > ARGV[4] and seq or ARGV[4]) .. (watermark > ARGV[5] and watermark or ARGV[5]))
return { 'OK' }
