#!lua
-- ACCEPT: append a batch; one verdict per item: 1 kept, 2 the tenant is full, 3 everything is full.
-- Without allow-oom on purpose: a full memory refuses the call before its first write, so nothing is half kept.
-- A repeat appends twice, which the dedupe in PostgreSQL settles.
--   ARGV  tenant entries, tenant bytes, all bytes, quarantine entries
--         then per item: tenant or '', session, origin or server, received at ms, body, reason (or '')
local most_entries, most_bytes, most_all = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local all = tonumber(call('HGET', 'wsm:load', 'bytes') or 0)
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
  if origin == 'waha' then -- wsm's own entries pass: without them a full mailbox would not drain
    if its.entries + its.new >= most_entries or its.bytes + its.size + size > most_bytes then return 2 end
    if all + size > most_all then return 3 end
  end
  call('XADD', key(t, 'in'), '*', 'at', at, 'origin', origin, 'session', session, 'body', body)
  its.new, its.size, all = its.new + 1, its.size + size, all + size
  return 1
end

for i = 5, #ARGV, 6 do
  local t, session, origin, at, body, reason = unpack(ARGV, i, i + 5)
  if t == '' then
    call('XADD', 'wsm:quarantine', 'MAXLEN', '~', ARGV[4], '*',
      'at', at, 'server', origin, 'session', session, 'reason', reason, 'body', body)
    verdicts[#verdicts + 1] = 1
  else
    verdicts[#verdicts + 1] = keep(t, session, origin, at, body)
  end
end

local mailed = false
for _, t in ipairs(order) do
  local its = loads[t]
  if its.new > 0 then
    count(t, its.new, its.size)
    if call('EXISTS', pointer(t, 'turn')) == 0 then
      mailed = mail('turn', t) or mailed
    end
  end
end
if mailed then wake() end
return verdicts
