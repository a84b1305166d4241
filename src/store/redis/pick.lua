-- Some fields of base, folds, marks or an hour.
-- store_id, which of them, then fields
-- OK values, in the order of the fields
local epoch, no = guard(ARGV[1], '')
if no then
  return no
end
local answer = { 'OK' }
for at = 3, #ARGV do
  answer[#answer + 1] = redis.call('HGET', key('u:' .. ARGV[2]), ARGV[at])
end
return answer
