-- Puts another lease in force. Deleters go on waiting for the greatest there was.
-- store_id, lease_ms, identity row
-- OK
beat()
local epoch, no = guard(ARGV[1], replid_now())
if no then
  return no
end
local most = tonumber(redis.call('HGET', head, 'lease_most_ms'))
if tonumber(ARGV[2]) > most then
  redis.call('HSET', head, 'lease_most_ms', ARGV[2])
end
redis.call('HSET', head, 'lease_ms', ARGV[2])
redis.call('HSET', key('t:meta'), 'identity', ARGV[3])
return { 'OK' }
