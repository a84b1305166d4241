-- Takes an hour a step on its way out of the ledger, or back.
-- store_id, hour, where it stands or nothing, where it will or nothing, digest of its lines or nothing where it stays, then marks: key and mark; one without a mark is removed, the
-- others are put where there is none
-- OK epoch | CHANGED, where it stands elsewhere, or has lines left
-- {tg}:u:folds hash: where an hour stands that is not simply in the ledger, and the digest;  {tg}:u:wanted hash: such hours into which a merge was
-- refused;  {tg}:u:base hash: what their lines come to;  {tg}:u:moved: another number after every step and every move
beat()
local epoch, no = guard(ARGV[1], '')
if no then
  return no
end
local folds, hour, to = key('u:folds'), ARGV[2], ARGV[4]
local stands, digest = string.match(redis.call('HGET', folds, hour) or ' ', '^(%a*) (.*)$')
if stands ~= ARGV[3] then
  return { 'CHANGED' }
end
if to == 'archived' then
  if redis.call('EXISTS', key('u:' .. hour)) == 1 then
    return { 'CHANGED' }
  end
  redis.call('ZREM', key('u:hours'), hour)
end
for at = 6, #ARGV, 2 do
  if ARGV[at + 1] == '' then
    redis.call('HDEL', key('u:marks'), ARGV[at])
  else
    redis.call('HSETNX', key('u:marks'), ARGV[at], ARGV[at + 1])
  end
end
if to == '' then
  redis.call('HDEL', folds, hour)
  redis.call('HDEL', key('u:wanted'), hour)
else
  redis.call('HSET', folds, hour, to .. ' ' .. (ARGV[5] ~= '' and ARGV[5] or digest))
end
redis.call('SET', key('u:moved'), redis.call('INCR', key('u:merges')))
return { 'OK', epoch }
