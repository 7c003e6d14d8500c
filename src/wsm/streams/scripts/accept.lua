#!lua
-- ACCEPT: append a batch; one verdict per item: 1 kept, 2 the tenant is full, 3 everything is full.
-- Without allow-oom on purpose: a full memory refuses the call before its first write, so nothing is half kept.
-- A repeat appends twice, which the dedupe in PostgreSQL settles.
--   ARGV  tenant entries, tenant bytes, all bytes, quarantine entries, quarantine bytes
--         then per item: tenant or '', session, origin or server, received at ms, body, reason (or '')
local most_entries, most_bytes, most_all = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local held = call('HMGET', 'wsm:load', 'bytes', 'dead_bytes')
local all = tonumber(held[1] or 0) + tonumber(held[2] or 0) -- dead letters take memory, too
local loads, order, verdicts = {}, {}, {}

local function load(t)
  if not loads[t] then
    local now = call('HMGET', key(t, 'load'), 'entries', 'bytes')
    loads[t] = { entries = tonumber(now[1] or 0), bytes = tonumber(now[2] or 0), new = 0, size = 0 }
    order[#order + 1] = t
  end
  return loads[t]
end

local function keep(t, session, origin, at, body)
  local its, size = load(t), #body
  -- wsm's own entries pass: without them a full mailbox would not drain. What was fetched from WAHA is WAHA's.
  if origin == 'waha' or origin == 'catch_up' then
    if its.entries + its.new >= most_entries or its.bytes + its.size + size > most_bytes then return 2 end
    if all + size > most_all then return 3 end
  end
  call('XADD', key(t, 'in'), '*', 'at', at, 'origin', origin, 'session', session, 'body', body)
  its.new, its.size, all = its.new + 1, its.size + size, all + size
  return 1
end

-- The oldest makes room for the newest.
local function quarantine(session, server, at, body, reason)
  call('XADD', 'wsm:quarantine', '*', 'at', at, 'server', server, 'session', session, 'reason', reason, 'body', body)
  local kept = call('XLEN', 'wsm:quarantine')
  local bytes = call('HINCRBY', 'wsm:load', 'quarantine_bytes', #body)
  while kept > tonumber(ARGV[4]) or bytes > tonumber(ARGV[5]) and kept > 1 do
    local oldest = call('XRANGE', 'wsm:quarantine', '-', '+', 'COUNT', 1)[1]
    kept = kept - call('XDEL', 'wsm:quarantine', oldest[1])
    bytes = call('HINCRBY', 'wsm:load', 'quarantine_bytes', -#oldest[2][10])
  end
end

for i = 6, #ARGV, 6 do
  local t, session, origin, at, body, reason = unpack(ARGV, i, i + 5)
  if t == '' then
    quarantine(session, origin, at, body, reason)
    verdicts[#verdicts + 1] = 1
  else
    verdicts[#verdicts + 1] = keep(t, session, origin, at, body)
  end
end

-- Whoever stands in mail has no bell and is known to be active: one question settles it for him.
local mailed, entries, bytes = false, 0, 0
for _, t in ipairs(order) do
  local its = loads[t]
  if its.new > 0 then
    add(key(t, 'load'), its.new, its.size)
    entries, bytes = entries + its.new, bytes + its.size
    if not call('ZSCORE', 'wsm:mail:turn', t) and call('EXISTS', pointer(t, 'turn')) == 0 then
      mailed = mail('turn', t) or mailed
    end
  end
end
if entries > 0 then add('wsm:load', entries, bytes) end
if mailed then wake('turn') end
return verdicts
