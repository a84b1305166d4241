-- What merges changed after a certain one.
-- store_id, number of the merge, most
-- OK number of the last merge, number of the last move between ledger and base, then for each line: its row, the number of the merge, the line
local epoch, no = guard(ARGV[1], '')
if no then
  return no
end
local answer = { 'OK', tonumber(redis.call('GET', key('u:merges')) or '0'),
  tonumber(redis.call('GET', key('u:moved')) or '0') }
local rows = redis.call('ZRANGEBYSCORE', key('u:changed'), '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
for at = 1, #rows, 2 do
  local hour = struct.unpack('>I4', rows[at])
  answer[#answer + 1] = rows[at]
  answer[#answer + 1] = tonumber(rows[at + 1])
  answer[#answer + 1] = redis.call('HGET', key('u:' .. string.format('%.0f', hour)), rows[at])
end
return answer
