-- Tells in the change feed what changed beside the lines. Without places it only makes sure that this is the ledger that is meant.
-- store_id, then places
-- OK
beat()
local _, no = guard(ARGV[1], '')
if no then
  return no
end
for at = 2, #ARGV do
  redis.call('ZADD', key('u:changed'), redis.call('INCR', key('u:merges')), ARGV[at])
end
return { 'OK' }
