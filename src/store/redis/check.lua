-- Whether a change could be made now, and at which commit.
-- store_id, server
-- OK commit
beat()
local epoch, no = guard(ARGV[1], ARGV[2])
if no then
  return no
end
return { 'OK', tonumber(redis.call('HGET', head, 'commit')) }
