#!lua flags=allow-oom
-- PAUSE: pause a tenant, or let him go on; 1 if that changed anything. A second pause replaces the reason.
--   ARGV  tenant, why ('ms by reason'), or '' to go on
local t, why = ARGV[1], ARGV[2]
if why ~= '' then
  local before = call('HEXISTS', 'wsm:paused', t)
  pause(t, why)
  leave(t, left(t))
  flush()
  return 1 - before
end

if call('HDEL', 'wsm:paused', t) == 0 then return 0 end
if runnable(t, left(t)) and call('EXISTS', pointer(t, 'turn')) == 0 and mail('turn', t) then wake('turn') end
if mail('deliver', t) then wake('deliver') end
return 1
