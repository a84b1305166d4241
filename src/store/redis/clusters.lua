-- Every cluster.
-- store_id
-- OK epoch revision, then the rows
beat()
local epoch, no = guard(ARGV[1], '')
if no then
  return no
end
local answer = { 'OK', epoch, tonumber(redis.call('HGET', key('t:meta'), 'revision')) }
for _, row in ipairs(redis.call('HVALS', key('t:clusters'))) do
  answer[#answer + 1] = row
end
return answer
