-- Who is registered, and what each has applied.
-- store_id, server
-- OK, then standing()
beat()
local epoch, no = guard(ARGV[1], ARGV[2])
if no then
  return no
end
return standing({ 'OK' }, epoch)
