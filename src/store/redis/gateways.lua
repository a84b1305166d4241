-- Who is registered, and what each has applied.
-- store_id
-- OK, then standing()
beat()
local epoch, no = guard(ARGV[1], '')
if no then
  return no
end
return standing({ 'OK' }, epoch)
