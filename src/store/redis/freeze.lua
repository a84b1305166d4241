-- Nothing is answered from now on: the store that was here is gone, and somebody remembers it.
-- why
-- OK; nothing happens where a store is there
beat()
if redis.call('HEXISTS', head, 'store_id') == 0 then
  redis.call('SET', key('frozen'), ARGV[1])
end
return { 'OK' }
