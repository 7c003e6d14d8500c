#!lua flags=allow-oom
-- CLAIM: renew what a worker holds, then lease it the next ready bells, turns with their first entries.
-- After a lost lease a turn gets one entry, then 2, 4, … (FINISH doubles `few`); a lone entry is counted before
-- it is handed out, so that one which kills its worker ends in the dead letters. A worker gets one such turn at
-- a time: of several that die with it, all would be counted for what one of them did.
-- Nobody overtakes: a ready tenant whose number is above the lowest in mail waits until that one has his bell.
-- While `rq suspend` holds, what is held is renewed and nothing new is leased. A delivery of a tenant who was
-- paused meanwhile is called lost, so that it begins nothing more; its pointer stays until it has ended.
--   ARGV  worker, now ms, lease ms, entries, bytes per turn, bytes in all, attempts, stamp, turn slots, deliver slots,
--         lone turns (0 or 1), dead letters that pause a tenant, then kind, tenant, bell of each held
--   reply {ids of held bells that are lost, {{kind, tenant, bell, alone, {{chat, entry}, …}, {parked chat, …}}, …}}
local worker, stamp = ARGV[1], ARGV[8]
local now, lease, most, bytes, room, tries =
  clock(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local lone, most_dead = tonumber(ARGV[11]), tonumber(ARGV[12])
local CHUNK, PAGE = 20, 100

local function hold(kind, t, bell, ...)
  call('HSET', pointer(t, kind), 'state', 'claimed', 'until', now + lease)
  -- A minute later than the lease: SWEEP comes before any stock worker's cleaning.
  call('ZADD', 'rq:wip:' .. t, (now + lease) / 1000 + 60, bell .. EXECUTION)
  call('HSET', 'rq:job:' .. bell, 'last_heartbeat', stamp, ...)
end

-- The first entries that may run: chats that are back come first, each in its own order, then the mailbox.
local function read(t, limit, back)
  local found, size = {}, 0
  local function take(chat)
    local from, asked, chunk = '-', nil, nil
    repeat
      asked = math.min(CHUNK, limit - #found)
      chunk = call('XRANGE', stream(t, chat), from, '+', 'COUNT', asked)
      for _, entry in ipairs(chunk) do
        local fields = entry[2]
        if not ours(fields, 1) then
          bury(t, chat, entry[1], 'not an entry of wsm', now, most_dead)
        else
          if #found > 0 and size + #fields[8] > bytes then return false end
          found[#found + 1], size = { chat, entry }, size + #fields[8]
        end
        from = '(' .. entry[1]
      end
      if #found >= limit then return false end
    until #chunk < asked
    return true
  end
  for _, chat in ipairs(back) do
    if not take(chat) then return found, size end
  end
  take('')
  return found, size
end

local function read_alone(t, back)
  while true do
    local found, size = read(t, 1, back)
    if #found == 0 then return found, size end
    local chat, id = found[1][1], found[1][2][1]
    if tonumber(call('HGET', key(t, 'attempts'), id) or 0) < tries then
      call('HINCRBY', key(t, 'attempts'), id, 1)
      call('HSET', pointer(t, 'turn'), 'counted', id)
      return found, size
    end
    bury(t, chat, id, 'lost its worker every time', now, most_dead)
  end
end

local function open(t, few)
  local chats, back, aside = call('ZRANGE', key(t, 'parked'), 0, -1, 'WITHSCORES'), {}, {}
  for i = 1, #chats, 2 do
    local which = chats[i + 1] == '0' and back or aside
    which[#which + 1] = chats[i]
  end
  local found, size
  if few == 1 then
    found, size = read_alone(t, back)
  else
    found, size = read(t, math.min(few or most, most), back)
  end
  room = room - size
  return few == 1 and 1 or 0, found, aside
end

local bells, lost = {}, {}
for i = 13, #ARGV, 3 do
  local kind, t, bell = unpack(ARGV, i, i + 2)
  local its = call('HMGET', pointer(t, kind), 'bell', 'state')
  local mine = its[1] == bell and its[2] == 'claimed'
  if mine then hold(kind, t, bell) end
  if not mine or kind == 'deliver' and paused(t) then lost[#lost + 1] = bell end
end
if call('EXISTS', 'rq:suspended') == 1 then return { lost, bells } end

-- Lease the next bell of a tenant; false if it is not in its queue: popped by somebody else, SWEEP rings again.
local function lease_to(kind, t, few)
  local its = call('HMGET', pointer(t, kind), 'bell', 'state')
  if its[2] ~= 'queued' or call('LREM', 'rq:queue:' .. t, 1, its[1]) == 0 then return false end
  hold(kind, t, its[1], 'status', 'started', 'started_at', stamp, 'worker_name', worker)
  local bell = { kind, t, its[1], 0, {}, {} }
  if kind == 'turn' then bell[4], bell[5], bell[6] = open(t, few) end
  lone = lone - bell[4]
  bells[#bells + 1] = bell
  return true
end

for kind, slots in pairs({ turn = tonumber(ARGV[9]), deliver = tonumber(ARGV[10]) }) do
  local ready, passed, claimed, held_up = 'wsm:ready:' .. kind, 0, #bells, false
  local first = slots > 0 and tonumber(call('ZRANGE', 'wsm:mail:' .. kind, 0, 0, 'WITHSCORES')[2] or nil)
  while slots > 0 and room > 0 and not held_up do
    local page = call('ZRANGE', ready, passed, passed + math.min(slots, PAGE) - 1, 'WITHSCORES')
    if #page == 0 then break end
    local taken = {}
    for i = 1, #page, 2 do
      local t = page[i]
      held_up = first and tonumber(page[i + 1]) > first
      if held_up or room <= 0 then break end
      local few = kind == 'turn' and tonumber(said('wsm:few', t) or nil)
      if few == 1 and lone == 0 then
        passed = passed + 1
      else
        taken[#taken + 1] = t
        if lease_to(kind, t, few) then slots = slots - 1 end
      end
    end
    if #taken > 0 then call('ZREM', ready, unpack(taken)) end
  end
  -- For the next idle worker, or for this one, which has mail to ring for first.
  if held_up or #bells > claimed and call('EXISTS', ready) == 1 then wake(kind) end
end
return { lost, bells }
