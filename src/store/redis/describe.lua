-- How the store stands, whoever asks. No arguments.
-- OK, frozen, replid now, then the fields and values of the head; it has none where there is no store.
local answer = { 'OK', redis.call('GET', key('frozen')) or '', replid_now() }
for _, part in ipairs(redis.call('HGETALL', head)) do
  answer[#answer + 1] = part
end
return answer
