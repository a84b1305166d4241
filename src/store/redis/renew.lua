-- Stores what a gateway has applied, and gives what came after it.
-- store_id, incarnation, its epoch or empty, applied, channel of acknowledgements, most entries, version of its program
-- OK epoch lease_ms revision, then the entries after `applied`, oldest first | TRIMMED epoch lease_ms revision
beat()
local epoch, no = guard(ARGV[1], '')
if no then
  return no
end
local revision = tonumber(redis.call('HGET', key('t:meta'), 'revision'))
local lease = tonumber(redis.call('HGET', head, 'lease_ms'))
-- What was applied in another epoch, or beyond what there is, says nothing about this one.
local applied = tonumber(ARGV[4])
local follows = ARGV[3] == epoch and applied <= revision
local acknowledged = follows and applied or 0
local before = redis.call('HGET', key('gateways'), ARGV[2]) or '0 0'
local was, renewals = string.match(before, '^(%d+) (%d+)')
was, renewals = tonumber(was), tonumber(renewals)
redis.call('HSET', key('gateways'), ARGV[2],
  string.format('%.0f %.0f %s', math.max(was, acknowledged), renewals + 1, ARGV[7]))
if acknowledged > was then
  redis.call('PUBLISH', ARGV[5], ARGV[2])
end
if ARGV[3] == '' then
  applied = 0
elseif not follows then
  return { 'TRIMMED', epoch, lease, revision }
end
local answer = { 'OK', epoch, lease, revision }
for number = applied + 1, math.min(revision, applied + tonumber(ARGV[6])) do
  local entry = redis.call('HGET', key('t:log'), struct.pack('>I8', number))
  if not entry then
    if number == applied + 1 then
      return { 'TRIMMED', epoch, lease, revision }
    end
    return answer
  end
  answer[#answer + 1] = entry
end
return answer
