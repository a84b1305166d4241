-- Changes how many replicas the store goes on without.
-- by how much, most, note for the audit log
-- OK how many now | THERE_IS_NONE
beat()
if redis.call('HEXISTS', head, 'store_id') == 0 then
  return { 'THERE_IS_NONE' }
end
local dropped = tonumber(redis.call('HGET', head, 'dropped') or '0') + tonumber(ARGV[1])
dropped = math.max(0, math.min(dropped, tonumber(ARGV[2])))
redis.call('HSET', head, 'dropped', dropped)
redis.call('RPUSH', key('notes'), ARGV[3])
return { 'OK', dropped }
