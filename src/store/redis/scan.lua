-- A page of the rows of a table in the order of their keys, at one commit.
-- store_id, server, commit or empty, table, from, to (as ZRANGEBYLEX has them), up or down, most
-- OK commit, then keys and values | MOVED
local epoch, no = guard(ARGV[1], ARGV[2])
if no then
  return no
end
local commit = redis.call('HGET', head, 'commit')
if ARGV[3] ~= '' and ARGV[3] ~= commit then
  return { 'MOVED' }
end
local answer = { 'OK', tonumber(commit) }
local order, rows, keys = key('z:' .. ARGV[4]), key('t:' .. ARGV[4])
if ARGV[7] == 'down' then
  keys = redis.call('ZREVRANGEBYLEX', order, ARGV[6], ARGV[5], 'LIMIT', 0, ARGV[8])
else
  keys = redis.call('ZRANGEBYLEX', order, ARGV[5], ARGV[6], 'LIMIT', 0, ARGV[8])
end
for _, row in ipairs(keys) do
  answer[#answer + 1] = row
  answer[#answer + 1] = redis.call('HGET', rows, row)
end
return answer
