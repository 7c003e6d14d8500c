#!lua flags=allow-oom
-- RING: give tenants in mail their bell, oldest mail first; returns how many bells were made.
-- A tenant with a bell gets no second one: a live turn looks again when it finishes, a live delivery is told to.
--   ARGV  kind, limit, id (bells are id-1, id-2, …), stamp, job data, then tenants to put into mail first
local kind, limit, id, stamp, data = unpack(ARGV, 1, 5)
local mailed, made = false, 0
for i = 6, #ARGV do mailed = mail(kind, ARGV[i]) or mailed end

local popped = call('ZPOPMIN', 'wsm:mail:' .. kind, limit)
for i = 1, #popped, 2 do later('SADD', 'wsm:active', popped[i]) end
flush() -- before their bells: SWEEP looks at nobody else
for i = 1, #popped, 2 do
  local t = popped[i]
  local state = call('HGET', pointer(t, kind), 'state')
  if not state then
    made = made + 1
    ring(kind, t, id .. '-' .. made, stamp, data, popped[i + 1])
  elseif kind == 'deliver' and state == 'claimed' then -- a queued one has not looked yet
    call('HSET', pointer(t, kind), 'again', 1)
  end
end
flush()
if mailed or made > 0 then wake(kind) end
return made
