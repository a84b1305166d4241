-- Rows, all as they are at one commit.
-- store_id, server, the commit at which the caller began to read or empty, table, keys
-- OK commit values | MOVED
local epoch, no = guard(ARGV[1], ARGV[2])
if no then
  return no
end
local commit = redis.call('HGET', head, 'commit')
if ARGV[3] ~= '' and ARGV[3] ~= commit then
  return { 'MOVED' }
end
local answer = { 'OK', tonumber(commit) }
for i = 5, #ARGV do
  answer[#answer + 1] = redis.call('HGET', key('t:' .. ARGV[4]), ARGV[i])
end
return answer
