-- A control plane has made again whatever this server may have lost. Once all have, another epoch begins.
-- store_id, replid on which it did, new epoch, identity row of it, own control plane, a random number, then the others
-- OK epoch | CLOSED replid, where the server is another one by now | WAITING names
beat()
local epoch, no = guard(ARGV[1], ARGV[2])
if no then
  return no
end
local replid = replid_now()
if redis.call('HGET', head, 'replid') == replid then
  return { 'OK', epoch }
end
redis.call('HSET', key('replayed'), ARGV[5], replid)
local missing = { 'WAITING' }
for i = 7, #ARGV do
  if redis.call('HGET', key('replayed'), ARGV[i]) ~= replid then
    missing[#missing + 1] = ARGV[i]
  end
end
if #missing > 1 then
  return missing
end
redis.call('HSET', head, 'epoch', ARGV[3], 'replid', replid)
redis.call('HDEL', head, 'quiet')
-- What anybody remembers of rows at a commit of before is of no use: the same number may stand for others now.
redis.call('HINCRBY', head, 'commit', ARGV[6])
redis.call('DEL', key('gateways'))
-- Changes of usage that were lost with the old server leave their numbers unused: whoever reads on behind them misses nothing.
leap()
redis.call('HSET', key('t:meta'), 'identity', ARGV[4])
return { 'OK', ARGV[3] }
