-- What the scripts share. The loader puts this between a script's first line and its body; keys.py says
-- what each key holds. A tenant's keys are computed here from its number: one Redis, no cluster.
local call = redis.call
local WAKE_TOKENS = 64
local FAILURE_TTL = 300 -- seconds that RQ keeps a bell which a stock worker ran and failed
local EXECUTION = ':1' -- a bell is claimed once, so the id of its only execution may be constant

local function key(t, name) return 'wsm:' .. t .. ':' .. name end
local function pointer(t, kind) return key(t, 'bell:' .. kind) end
-- Where an entry lies: '' is the mailbox, anything else the chat that was put aside.
local function stream(t, chat) return key(t, chat == '' and 'in' or 'parked:' .. chat) end

local function clock(given) -- milliseconds
  if given ~= '' then return tonumber(given) end
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function wake(kind)
  call('LPUSH', 'wsm:wake:' .. kind, '1')
  call('LTRIM', 'wsm:wake:' .. kind, 0, WAKE_TOKENS - 1)
end

-- Whether a tenant is paused. Asked of all of them at once first: almost always nobody is.
local some_paused
local function paused(t)
  if some_paused == nil then some_paused = call('EXISTS', 'wsm:paused') == 1 end
  return some_paused and call('HEXISTS', 'wsm:paused', t) == 1
end

-- Put a tenant behind all others in mail or ready; false if it stands there already.
local function enrol(zset, t)
  if call('ZSCORE', zset, t) then return false end
  call('ZADD', zset, call('INCR', 'wsm:turn'), t)
  return true
end

local function mail(kind, t)
  call('SADD', 'wsm:active', t)
  return not paused(t) and enrol('wsm:mail:' .. kind, t)
end

-- Make the one outstanding bell of a kind: the pointer, and the job as stock RQ 2.12 would have enqueued it.
-- `place` is the tenant's turn number if he waited in mail with one; without it he goes behind all others.
local function ring(kind, t, bell, stamp, data, place)
  call('HSET', pointer(t, kind), 'bell', bell, 'state', 'queued')
  call('HSET', 'rq:job:' .. bell, 'created_at', stamp, 'enqueued_at', stamp, 'data', data,
    'origin', t, 'description', kind .. '(' .. t .. ')', 'status', 'queued', 'timeout', 180,
    'result_ttl', 0, 'failure_ttl', FAILURE_TTL, 'started_at', '', 'ended_at', '', 'last_heartbeat', '',
    'worker_name', '', 'group_id', '', 'success_callback_name', '', 'failure_callback_name', '',
    'stopped_callback_name', '')
  call('RPUSH', 'rq:queue:' .. t, bell)
  call('SADD', 'rq:queues', 'rq:queue:' .. t)
  call('SADD', 'wsm:active', t)
  if place then call('ZADD', 'wsm:ready:' .. kind, place, t) else enrol('wsm:ready:' .. kind, t) end
end

-- Forget a bell, whatever became of it.
local function unring(kind, t, bell)
  call('DEL', pointer(t, kind), 'rq:job:' .. bell)
  call('ZREM', 'rq:wip:' .. t, bell .. EXECUTION)
  call('ZREM', 'wsm:ready:' .. kind, t)
end

-- Pause a tenant: what waits for a worker is taken back, so that none of his bells can be claimed. What is
-- claimed already comes to its end.
local function pause(t, why)
  call('HSET', 'wsm:paused', t, why)
  some_paused = true
  for _, kind in ipairs({ 'turn', 'deliver' }) do
    call('ZREM', 'wsm:mail:' .. kind, t)
    local its = call('HMGET', pointer(t, kind), 'bell', 'state')
    if its[2] == 'queued' then
      call('LREM', 'rq:queue:' .. t, 1, its[1])
      unring(kind, t, its[1])
    end
  end
end

-- Add to what a tenant and all tenants hold. (+ 0: Lua's -0 is no integer to HINCRBY.)
local function count(t, entries, bytes)
  for _, hash in ipairs({ key(t, 'load'), 'wsm:load' }) do
    call('HINCRBY', hash, 'entries', entries + 0)
    call('HINCRBY', hash, 'bytes', bytes + 0)
  end
end

-- Take one entry out of where it lies; false if it is not there.
local function remove(t, chat, id)
  local from = stream(t, chat)
  if call('XDEL', from, id) == 0 then return false end
  if chat ~= '' and call('XLEN', from) == 0 then
    call('DEL', from)
    call('ZREM', key(t, 'parked'), chat)
  end
  return true
end

-- Count dead letters, which are no tenant's load any more and still take memory.
local function count_dead(entries, bytes)
  call('HINCRBY', 'wsm:load', 'dead', entries + 0)
  call('HINCRBY', 'wsm:load', 'dead_bytes', bytes + 0)
end

-- Move one entry to the dead letters, with the reason. A tenant who has `most` of them is paused.
local function bury(t, chat, id, reason, now, most)
  local entry = call('XRANGE', stream(t, chat), id, id)[1]
  if not entry then return end
  local size = #(entry[2][8] or '')
  call('XADD', key(t, 'dead'), '*', 'entry', id, 'reason', reason, unpack(entry[2]))
  call('SADD', 'wsm:dead', t)
  remove(t, chat, id)
  call('HDEL', key(t, 'attempts'), id)
  count(t, -1, -size)
  count_dead(1, size)
  if call('XLEN', key(t, 'dead')) >= most and not paused(t) then pause(t, now .. ' dead_letters ' .. reason) end
end

local function runnable(t)
  return call('XLEN', key(t, 'in')) > 0 or call('ZCOUNT', key(t, 'parked'), 0, 0) > 0
end

-- Clear away whatever an idle tenant no longer needs. Dead letters stay and keep nobody active.
local function leave(t)
  local empty = call('XLEN', key(t, 'in')) == 0
  if empty then call('DEL', key(t, 'in')) end
  empty = empty and call('EXISTS', key(t, 'parked')) == 0
  if empty then
    local rest = call('HMGET', key(t, 'load'), 'entries', 'bytes')
    if (rest[1] or '0') ~= '0' or (rest[2] or '0') ~= '0' then count(t, -(rest[1] or 0), -(rest[2] or 0)) end
    call('DEL', key(t, 'load'), key(t, 'attempts'))
  end
  if call('EXISTS', pointer(t, 'turn'), pointer(t, 'deliver'), 'rq:queue:' .. t, 'rq:wip:' .. t) > 0 then return end
  call('SREM', 'rq:queues', 'rq:queue:' .. t)
  if empty then call('SREM', 'wsm:active', t) end
end
