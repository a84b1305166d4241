-- A page of the rows of a table in no order; a row may come twice.
-- store_id, server, commit or empty, table, cursor, about how many
-- OK commit cursor, then keys and values | MOVED
local epoch, no = guard(ARGV[1], ARGV[2])
if no then
  return no
end
local commit = redis.call('HGET', head, 'commit')
if ARGV[3] ~= '' and ARGV[3] ~= commit then
  return { 'MOVED' }
end
local page = redis.call('HSCAN', key('t:' .. ARGV[4]), ARGV[5], 'COUNT', ARGV[6])
local answer = { 'OK', tonumber(commit), page[1] }
for _, part in ipairs(page[2]) do
  answer[#answer + 1] = part
end
return answer
