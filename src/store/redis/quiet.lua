-- Leases of earlier epochs have run out, by the clock of whoever says so.
-- store_id, epoch
-- OK
beat()
local epoch, no = guard(ARGV[1], '')
if no then
  return no
end
if epoch == ARGV[2] then
  redis.call('HSET', head, 'quiet', epoch)
end
return { 'OK' }
