-- Nobody need wait for this incarnation any longer: it has given its lease back, or it was silent for so long that it has none.
-- store_id, incarnation, channel of acknowledgements, the number of renewals at which it was silent, or empty
-- OK
beat()
local epoch, no = guard(ARGV[1], '')
if no then
  return no
end
local _, renewals = string.match(redis.call('HGET', key('gateways'), ARGV[2]) or '', '^(%d+) (%d+)')
if renewals and (ARGV[4] == '' or ARGV[4] == renewals) then
  redis.call('HDEL', key('gateways'), ARGV[2])
  redis.call('PUBLISH', ARGV[3], ARGV[2])
end
return { 'OK' }
