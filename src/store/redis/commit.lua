-- Makes changes that were worked out from the rows as they are at one commit, if no other commit came between.
-- store_id, server, writer, number of this commit among the writer's, the commit it was worked out from, channel, how many
-- messages, the messages, then for each row: what to do, table, key, value
--   p put, o put into a table that is walked, r remove, w remove from one that is walked, l put a way from a digest,
--   t number a change of usage, b have one numbered by a ledger on another server
-- OK commit, then standing() | CONFLICT commit
-- Asking again for a commit that was made changes nothing and gives the same answer: an answer may get lost.
beat()
local epoch, no = guard(ARGV[1], ARGV[2])
if no then
  return no
end
local mine = key('writer:' .. ARGV[3])
local last, made = string.match(redis.call('GET', mine) or '', '^(%d+) (%d+)$')
if last == ARGV[4] then
  return standing({ 'OK', tonumber(made) }, epoch)
end
local commit = redis.call('HGET', head, 'commit')
if commit ~= ARGV[5] then
  return { 'CONFLICT', tonumber(commit) }
end
local at = 8 + tonumber(ARGV[7])
while at <= #ARGV do
  local what, name, row, value = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if what == 'p' or what == 'o' then
    redis.call('HSET', key('t:' .. name), row, value)
    if what == 'o' then
      redis.call('ZADD', key('z:' .. name), 0, row)
    end
  elseif what == 'l' then
    redis.call('HSET', key('ways'), row, value)
  elseif what == 't' then
    redis.call('ZADD', key('u:changed'), redis.call('INCR', key('u:merges')), row)
  elseif what == 'b' then
    redis.call('ZADD', key('outbox'), redis.call('INCR', key('outboxed')), row)
  else
    redis.call('HDEL', key('t:' .. name), row)
    if what == 'w' then
      redis.call('ZREM', key('z:' .. name), row)
    end
  end
  at = at + 4
end
made = redis.call('HINCRBY', head, 'commit', 1)
redis.call('SET', mine, ARGV[4] .. ' ' .. string.format('%.0f', made), 'EX', 3600)
for i = 8, 7 + tonumber(ARGV[7]) do
  redis.call('PUBLISH', ARGV[6], ARGV[i])
end
return standing({ 'OK', made }, epoch)
