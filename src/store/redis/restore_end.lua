-- The rows of a backup are a store now. It is closed until every control plane has made its changes again.
-- what everybody was told meanwhile, store_id, schema, epoch, lease_ms, greatest lease, commit, note for the audit log
-- OK | STOPPED
beat()
if redis.call('GET', key('frozen')) ~= ARGV[1] then
  return { 'STOPPED' }
end
redis.call('HSET', head, 'store_id', ARGV[2], 'schema', ARGV[3], 'epoch', ARGV[4], 'replid', 'restored', 'lease_ms', ARGV[5],
  'lease_most_ms', ARGV[6], 'commit', ARGV[7])
redis.call('RPUSH', key('notes'), ARGV[8])
redis.call('DEL', key('frozen'))
return { 'OK' }
