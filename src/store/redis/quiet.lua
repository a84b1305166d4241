-- Leases of earlier epochs have run out, by the clock of whoever says so.
-- store_id, server, epoch
-- OK
beat()
local epoch, no = guard(ARGV[1], ARGV[2])
if no then
  return no
end
if epoch == ARGV[3] then
  redis.call('HSET', head, 'quiet', epoch)
end
return { 'OK' }
