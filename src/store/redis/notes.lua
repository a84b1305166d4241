-- What was done to the store by hand and is not in the audit log yet. `written` of them are there by now, and leave.
-- store_id, written
-- OK, then the notes
beat()
local epoch, no = guard(ARGV[1], '')
if no then
  return no
end
redis.call('LTRIM', key('notes'), ARGV[2], -1)
local answer = { 'OK' }
for _, note in ipairs(redis.call('LRANGE', key('notes'), 0, -1)) do
  answer[#answer + 1] = note
end
return answer
