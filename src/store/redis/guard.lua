-- Stands before every script of the store, behind server.lua.
--   {tg}:head    hash: store_id, schema, epoch, replid, lease_ms, lease_most_ms, commit, quiet, dropped, ledger
--   {tg}:t:NAME  hash: the rows of a table;  {tg}:z:NAME  zset, all scores 0: their keys in order, where a table is walked
--   {tg}:frozen  string: why nothing may be answered; set by a control plane that knows of a store that is gone, and by a restore
--   {tg}:notes   list: what was done by hand and is not in the audit log yet
local head = key('head')

-- A master that was cut off may go on answering reads. It cannot answer a script that begins with a write.
local function beat()
  redis.call('INCR', key('beat'))
end

-- The epoch, nothing and the replid, if this is still the store `store_id` and the server the one that is meant; else nil and the answer to give. A control
-- plane names the replid of the server on which it has last made its changes again, also while it is about to open another epoch
-- there: its connections may lead to different servers for a while. For whoever names none it is the server on which the epoch was opened.
local function guard(store_id, server)
  local known = redis.call('HMGET', head, 'store_id', 'replid', 'epoch')
  local frozen = redis.call('GET', key('frozen'))
  if frozen then
    return nil, { 'FROZEN', frozen }
  end
  if not known[1] then
    return nil, { 'GONE' }
  end
  if known[1] ~= store_id then
    return nil, { 'OTHER', known[1] }
  end
  local replid = replid_now()
  if replid ~= (server ~= '' and server or known[2]) then
    return nil, { 'CLOSED', replid }
  end
  return known[3], nil, replid
end

-- epoch, the number of this answer among all (scripts that begin with a write count them), revision, the greatest lease
-- outstanding, the epoch that is known to be quiet, how many replicas it goes on without, then the gateways.
local function standing(answer, epoch)
  local known = redis.call('HMGET', head, 'lease_most_ms', 'quiet', 'dropped')
  answer[#answer + 1] = epoch
  answer[#answer + 1] = tonumber(redis.call('GET', key('beat')))
  answer[#answer + 1] = tonumber(redis.call('HGET', key('t:meta'), 'revision'))
  answer[#answer + 1] = tonumber(known[1])
  answer[#answer + 1] = known[2] or ''
  answer[#answer + 1] = tonumber(known[3] or '0')
  for _, part in ipairs(redis.call('HGETALL', key('gateways'))) do
    answer[#answer + 1] = part
  end
  return answer
end

