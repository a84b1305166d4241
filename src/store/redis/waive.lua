-- Goes on without a control plane that is lost: neither setting up nor opening another epoch waits for it.
-- its id, note for the audit log
-- OK | OPEN, where nobody waits for it | FROZEN why
beat()
local frozen = redis.call('GET', key('frozen'))
if frozen then
  return { 'FROZEN', frozen }
end
local replid = replid_now()
if redis.call('HEXISTS', head, 'store_id') == 0 then
  redis.call('SADD', key('applicants'), ARGV[1])
elseif redis.call('HGET', head, 'replid') == replid then
  return { 'OPEN' }
else
  redis.call('HSET', key('replayed'), ARGV[1], replid)
end
redis.call('RPUSH', key('notes'), ARGV[2])
return { 'OK' }
