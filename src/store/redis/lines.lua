-- A page of the lines of an hour, or of marks, base, folds or wanted, in no order; one may come twice.
-- store_id, which of them, cursor, about how many
-- OK cursor, then rows and lines
local epoch, no = guard(ARGV[1], '')
if no then
  return no
end
local page = redis.call('HSCAN', key('u:' .. ARGV[2]), ARGV[3], 'COUNT', ARGV[4])
local answer = { 'OK', page[1] }
for _, part in ipairs(page[2]) do
  answer[#answer + 1] = part
end
return answer
