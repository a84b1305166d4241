-- Makes a store where there is none. Of several that ask at once, one is heard.
-- store_id, schema, epoch, lease_ms, identity row, own control plane, then the control planes that have to ask as well
-- MADE | THERE | FROZEN why | WAITING names
beat()
local frozen = redis.call('GET', key('frozen'))
if frozen then
  return { 'FROZEN', frozen }
end
if redis.call('HEXISTS', head, 'store_id') == 1 then
  return { 'THERE' }
end
redis.call('SADD', key('applicants'), ARGV[6])
local missing = { 'WAITING' }
for i = 7, #ARGV do
  if redis.call('SISMEMBER', key('applicants'), ARGV[i]) == 0 then
    missing[#missing + 1] = ARGV[i]
  end
end
if #missing > 1 then
  return missing
end
redis.call('DEL', key('applicants'))
redis.call('HSET', head, 'store_id', ARGV[1], 'schema', ARGV[2], 'epoch', ARGV[3], 'replid', replid_now(),
  'lease_ms', ARGV[4], 'lease_most_ms', ARGV[4], 'commit', 0, 'quiet', ARGV[3])
redis.call('HSET', key('t:meta'), 'schema', ARGV[2], 'revision', '0', 'identity', ARGV[5])
return { 'MADE' }
