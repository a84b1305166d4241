-- Makes room for a store from a backup, and keeps everybody out until it is there.
-- what everybody is told meanwhile, then the names of the tables
-- OK | THERE store_id
beat()
local there = redis.call('HGET', head, 'store_id')
if there then
  return { 'THERE', there }
end
redis.call('SET', key('frozen'), ARGV[1])
for i = 2, #ARGV do
  redis.call('UNLINK', key('t:' .. ARGV[i]), key('z:' .. ARGV[i]))
end
for _, hour in ipairs(redis.call('ZRANGE', key('u:hours'), 0, -1)) do
  redis.call('UNLINK', key('u:' .. hour))
end
redis.call('UNLINK', key('u:base'), key('u:folds'), key('u:wanted'))
redis.call('UNLINK', key('ways'), key('gateways'), key('replayed'), key('applicants'), key('u:hours'), key('u:marks'),
  key('u:changed'), key('notes'), key('outbox'))
leap()
redis.call('SET', key('u:moved'), redis.call('INCR', key('u:merges')))
return { 'OK' }
