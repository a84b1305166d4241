-- What the change feed of a ledger on another server has still to tell. What was told leaves, unless it changed meanwhile.
-- store_id, server, how many at most, then for each that was told: place, number
-- OK, then places and numbers
--   {tg}:outbox zset: places by the number of their last change, which {tg}:outboxed counts
beat()
local epoch, no = guard(ARGV[1], ARGV[2])
if no then
  return no
end
for at = 4, #ARGV, 2 do
  if redis.call('ZSCORE', key('outbox'), ARGV[at]) == ARGV[at + 1] then
    redis.call('ZREM', key('outbox'), ARGV[at])
  end
end
return { 'OK', unpack(redis.call('ZRANGE', key('outbox'), 0, ARGV[3] - 1, 'WITHSCORES')) }
