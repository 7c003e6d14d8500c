#!lua flags=allow-oom
-- FINISH: settle claimed bells, one after the other; each 1, or 0 and no change if its pointer is no longer the
-- caller's.
--   ARGV  now ms, stamp, id (the next bells are kind-id-1, kind-id-2, …), job data of a turn, of a delivery,
--         entries of a full turn, dead letters that pause the tenant,
--         n and n delays in ms: the n+1st failure of an entry is its last,
--         then per bell: how many values follow, kind, tenant, bell, deliver, more,
--           n and n × (chat, id, bytes) handled,
--           n and n × (chat, place of the culprit or 0, reason, m, m × (chat where it lies, id)) put aside
local at = 0
local function take()
  at = at + 1
  return ARGV[at]
end
local function number() return tonumber(take()) end

local now, stamp, fresh, data = clock(take()), take(), take(), { turn = take(), deliver = take() }
local full, most_dead = number(), number()
local delays = {}
for i = 1, number() do delays[i] = number() end

-- Move one entry to the chat put aside, under its own id unless a clock step forbids that; returns its id there.
local function put_aside(t, chat, from, id)
  if from == chat then return id end
  local attempts = key(t, 'attempts')
  local entry = call('XRANGE', stream(t, from), id, id)[1]
  if not entry then return id end
  local moved = redis.pcall('XADD', stream(t, chat), id, unpack(entry[2]))
  if type(moved) == 'table' then
    moved = call('XADD', stream(t, chat), '*', unpack(entry[2]))
    local failed = call('HGET', attempts, id)
    if failed then
      call('HSET', attempts, moved, failed)
      call('HDEL', attempts, id)
    end
  end
  remove(t, from, id)
  return moved
end

local function settle(place)
  local kind, t, bell = take(), take(), take()
  local its = call('HMGET', pointer(t, kind), 'bell', 'state', 'again', 'counted')
  if its[1] ~= bell or its[2] ~= 'claimed' then return 0 end

  local deliver, more = take() == '1', take() == '1'
  local attempts, parked = key(t, 'attempts'), key(t, 'parked')

  -- It came back alive: the attempt that CLAIM counted for a lone entry was none.
  if its[4] and call('HINCRBY', attempts, its[4], -1) <= 0 then call('HDEL', attempts, its[4]) end

  local gone, bytes = {}, 0
  for _ = 1, number() do
    local chat, id, size = take(), take(), number()
    if remove(t, chat, id) then
      gone[#gone + 1], bytes = id, bytes + size
    end
  end

  local parkings = number()
  for _ = 1, parkings do
    local chat, nth, reason, culprit = take(), number(), take(), nil
    for i = 1, number() do
      local id = put_aside(t, chat, take(), take())
      if i == nth then culprit = id end
    end
    if culprit then
      local due = delays[call('HINCRBY', attempts, culprit, 1)]
      call('ZADD', parked, due and now + due or 0, chat)
      if not due then bury(t, chat, culprit, reason, now, most_dead) end
    else
      call('ZADD', parked, 'NX', 0, chat)
    end
    if call('XLEN', stream(t, chat)) == 0 then
      call('DEL', stream(t, chat))
      call('ZREM', parked, chat)
    end
  end

  -- After a lost lease turns grow back: 1 entry, 2, 4, …
  local few = kind == 'turn' and #gone + parkings > 0 and said('wsm:few', t)
  if few then
    if few * 2 < full then say('wsm:few', t, few * 2) else call('HDEL', 'wsm:few', t) end
  end

  unring(kind, t, bell)
  local woken = deliver and mail('deliver', t)
  local waiting, aside = left(t)
  if #gone > 0 and (waiting > 0 or aside) then -- or `leave` forgets all that he has
    count(t, -#gone, -bytes)
    call('HDEL', attempts, unpack(gone))
  end
  if kind == 'turn' then more = runnable(t, waiting, aside) else more = more or its[3] == '1' end
  more = more and not paused(t)
  if more then ring(kind, t, kind .. '-' .. fresh .. '-' .. place, stamp, data[kind]) end
  leave(t, waiting, aside)
  -- A lone turn kept its worker from others of its kind, which may be all that is ready.
  local passed = its[4] and call('EXISTS', 'wsm:ready:turn') == 1
  if woken then wake('deliver') end
  if more or passed then wake(kind) end
  return 1
end

local settled = {}
while at < #ARGV do
  local size = number()
  local after = at + size
  settled[#settled + 1] = settle(#settled + 1)
  at = after
end
flush()
return settled
