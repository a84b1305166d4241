-- Takes usage in: of each number the greater one stays. Numbers are 20 digits, compared as text: Lua's own end at 2^53.
-- store_id, hour, key of the mark, sequence and the one that must be known before it, watermark, closing or nothing, how many numbers a line has, which of them gathers bits, then rows and lines
-- OK epoch replid, the sequence that was known before | FULL | ARCHIVED
-- {tg}:u:HOUR hash: lines of an hour by row;  {tg}:u:hours zset;  {tg}:u:marks hash;  {tg}:u:changed zset: rows by the number of
-- the merge that changed them last
beat()
local epoch, no, replid = guard(ARGV[1], '')
if no then
  return no
end
-- It has left the ledger. Whoever moved it out brings it back.
if redis.call('HEXISTS', key('u:folds'), ARGV[2]) == 1 then
  if #ARGV == 8 and ARGV[6] == '' then
    -- It only asks whether anything is lost. What has left is in the archive.
    return { 'OK', epoch, replid, string.sub(ARGV[4], 21) }
  end
  redis.call('HSET', key('u:wanted'), ARGV[2], '')
  return { 'ARCHIVED' }
end
local memory = redis.call('INFO', 'memory')
local used = tonumber(string.match(memory, 'used_memory:(%d+)'))
local most = tonumber(string.match(memory, 'maxmemory:(%d+)'))
-- Without lines it is an enrolment or a closing, which are small: a gateway has to be able to start.
if #ARGV > 8 and most > 0 and used > most * 0.75 then
  return { 'FULL' }
end
local function digits(number)
  return string.sub(string.format('%020.0f', number), -20)
end
local lines, numbers, gathers = key('u:' .. ARGV[2]), tonumber(ARGV[7]), tonumber(ARGV[8])
local function greater(known, new, count, bits)
  local merged = {}
  for i = 1, count do
    local old, now = string.sub(known, i * 20 - 19, i * 20), string.sub(new, i * 20 - 19, i * 20)
    if i == bits and old ~= now then
      merged[i] = digits(bit.bor(tonumber(old), tonumber(now)))
    else
      merged[i] = old > now and old or now
    end
  end
  return table.concat(merged)
end
local sequence = redis.call('INCR', key('u:merges'))
for at = 9, #ARGV, 2 do
  local row, line = ARGV[at], ARGV[at + 1]
  local known = redis.call('HGET', lines, row)
  if known and known ~= line then
    line = greater(known, line, numbers, gathers)
  end
  if line ~= known then
    redis.call('HSET', lines, row, line)
    redis.call('ZADD', key('u:changed'), sequence, row)
  end
end
redis.call('ZADD', key('u:hours'), ARGV[2], ARGV[2])
local mark, after = string.sub(ARGV[4], 1, 20) .. ARGV[5], string.sub(ARGV[4], 21)
local known = redis.call('HGET', key('u:marks'), ARGV[3])
local before = known and string.sub(known, 1, 20) or string.rep('0', 20)
if before < after then
  -- What was acknowledged is lost. Until it is sent again this batch does not count as one that is known.
  redis.call('HSETNX', key('u:marks'), ARGV[3], string.rep('0', 40))
  return { 'OK', epoch, replid, before }
end
known = known or mark
-- A closing is the number of lines, their sum, and whether the incarnation leaves.
local was, closing = string.sub(known, 41), ARGV[6]
if was ~= '' then
  closing = closing == '' and was or greater(was, closing, numbers + 2, gathers + 1)
end
redis.call('HSET', key('u:marks'), ARGV[3], greater(string.sub(known, 1, 40), mark, 2) .. closing)
return { 'OK', epoch, replid, before }
