-- What is known of a key.
-- store_id, digest, bytes of an id
-- OK epoch revision, then nothing where there is no such key, or its row and the row of its account
beat()
local epoch, no = guard(ARGV[1], '')
if no then
  return no
end
local answer = { 'OK', epoch, tonumber(redis.call('HGET', key('t:meta'), 'revision')) }
local way, length = redis.call('HGET', key('ways'), ARGV[2]), tonumber(ARGV[3])
if way then
  answer[4] = redis.call('HGET', key('t:keys'), string.sub(way, 1, length))
  answer[5] = redis.call('HGET', key('t:accounts'), string.sub(way, length + 1))
end
return answer
