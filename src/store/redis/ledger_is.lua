-- Where the usage of this store is: the first to say so decides, for as long as no usage is here.
-- store_id, here or apart
-- OK | HERE | APART, where it is elsewhere
beat()
if redis.call('HGET', head, 'store_id') ~= ARGV[1] then
  return { 'GONE' }
end
local known = redis.call('HGET', head, 'ledger')
if redis.call('EXISTS', key('u:hours'), key('u:marks'), key('u:base')) > 0 then
  known = 'here'
elseif known == 'here' then
  known = false
end
if known and known ~= ARGV[2] then
  return { string.upper(known) }
end
redis.call('HSET', head, 'ledger', ARGV[2])
return { 'OK' }
