-- A page of the hours that have lines.
-- store_id, from, to, how many at most
-- OK hours
local epoch, no = guard(ARGV[1], '')
if no then
  return no
end
return { 'OK', unpack(redis.call('ZRANGEBYSCORE', key('u:hours'), ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])) }
