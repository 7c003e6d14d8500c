#!lua flags=allow-oom
-- SWEEP: look at a slice of the active tenants and repair by state, never by age: a backlog makes no storm.
--   ARGV  cursor, slice, now ms
--   reply {next cursor, rung, expired, returned, repaired, foreign}
local now = clock(ARGV[3])
local rung, expired, returned, repaired, foreign, woken = 0, 0, 0, 0, 0, {}
local SAMPLE, LISTED = 20, 64

local function post(kind, t)
  if mail(kind, t) then rung, woken[kind] = rung + 1, true end
end

-- Look at one kind's pointer; returns the id of its bell while the bell stands.
local function check(kind, t)
  local its = call('HMGET', pointer(t, kind), 'bell', 'state', 'until')
  local bell = its[1]
  if not bell then return end
  if its[2] == 'claimed' then
    if tonumber(its[3]) >= now then return bell end
    expired = expired + 1
    if kind == 'turn' then say('wsm:few', t, 1) end
  elseif call('LPOS', 'rq:queue:' .. t, bell) then
    if enrol('wsm:ready:' .. kind, t) then repaired, woken[kind] = repaired + 1, true end
    return bell
  else
    repaired = repaired + 1
    call('LREM', 'rq:queue:' .. t .. ':intermediate', 1, bell)
    call('ZREM', 'wsm:ready:' .. kind, t)
  end
  unring(kind, t, bell)
  if kind == 'deliver' then post(kind, t) end
end

-- Whether an id is one of ours: its kind and 32 hexadecimal digits.
local function is_bell(id)
  local kind, digits = id:match('^(%a+)%-(%x+)')
  return (kind == 'turn' or kind == 'deliver') and #digits == 32
end

-- Drop bells that are no pointer's; count what others put into the queue.
local function check_queue(t, turn, deliver)
  local queue = 'rq:queue:' .. t
  local own = 0
  for _, id in ipairs(call('LRANGE', queue, 0, LISTED - 1)) do
    if id == turn or id == deliver then
      own = own + 1
    elseif is_bell(id) then
      call('LREM', queue, 1, id)
      call('DEL', 'rq:job:' .. id)
      repaired = repaired + 1
    end
  end
  foreign = foreign + call('LLEN', queue) - own
end

local function look(t)
  local turn, deliver = check('turn', t), check('deliver', t)
  for _, chat in ipairs(call('ZRANGEBYSCORE', key(t, 'parked'), '(0', now)) do
    call('ZADD', key(t, 'parked'), 0, chat)
    returned = returned + 1
  end
  if not turn and runnable(t, left(t)) then post('turn', t) end
  check_queue(t, turn, deliver)
  if not turn and not deliver then leave(t, left(t)) end
end

local page = call('SSCAN', 'wsm:active', ARGV[1], 'COUNT', ARGV[2])
for _, t in ipairs(page[2]) do look(t) end
flush()

-- Queues of tenants that wsm has no reason to look at: filled by other tools, or a registration left behind.
for _, queue in ipairs(call('SRANDMEMBER', 'rq:queues', SAMPLE)) do
  local t = queue:match('^rq:queue:(%d+)$')
  if t and call('SISMEMBER', 'wsm:active', t) == 0 then
    call('SADD', 'wsm:active', t)
  end
end
for kind in pairs(woken) do wake(kind) end
return { page[1], rung, expired, returned, repaired, foreign }
