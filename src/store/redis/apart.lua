-- Stands before the scripts of usage on a server that keeps usage and nothing else, in place of guard.lua.
--   {tg}:ledger  hash: store_id, whose usage it is; replid, of the server whose numbers of changes are above those of before
local head = key('ledger')
local writes = false

local function beat()
  redis.call('INCR', key('beat'))
  writes = true
end

-- Nothing, nothing and the replid, if this is the ledger of the store `store_id`; else nil and the answer to give. The first to
-- write makes it that. There are no epochs here: whoever sent something hears which server took it, and sends it again to another one.
local function guard(store_id)
  local store = redis.call('HGET', key('head'), 'store_id')
  if store then
    return nil, { 'STORE', store }
  end
  local replid = replid_now()
  local known = redis.call('HMGET', head, 'store_id', 'replid')
  if known[1] and known[1] ~= store_id then
    return nil, { 'OTHER', known[1] }
  end
  if known[2] ~= replid then
    if writes then
      leap()
      redis.call('HSET', head, 'store_id', store_id, 'replid', replid)
    elseif not known[1] then
      return nil, { 'GONE' }
    end
  end
  return '', nil, replid
end

