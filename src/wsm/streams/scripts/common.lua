-- What the scripts share. The loader puts this between a script's first line and its body; keys.py says
-- what each key holds. A tenant's keys are computed here from its number: one Redis, no cluster.
local call = redis.call
local WAKE_TOKENS = 64
local FAILURE_TTL = 300 -- seconds that RQ keeps a bell which a stock worker ran and failed
local MOST_ARGUMENTS = 1000 -- of a command that takes many; Lua's stack ends at 8,000
local EXECUTION = ':1' -- a bell is claimed once, so the id of its only execution may be constant

local function key(t, name) return 'wsm:' .. t .. ':' .. name end
local function pointer(t, kind) return 'wsm:' .. t .. ':bell:' .. kind end
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

-- What a hash says of a tenant that is about few of them. Whether it is there at all is asked once in a call:
-- almost always it is not.
local some = {}
local function said(hash, t)
  if some[hash] == nil then some[hash] = call('EXISTS', hash) == 1 end
  return some[hash] and call('HGET', hash, t)
end
local function say(hash, t, value)
  call('HSET', hash, t, value)
  some[hash] = true
end
local function paused(t) return said('wsm:paused', t) and true end

-- Commands that many tenants of one call need alike, each run once, by `flush`: only what SWEEP repairs should
-- the call break before.
local put_off = {}
local function flush()
  for _, all in pairs(put_off) do call(unpack(all)) end
  put_off = {}
end
local function later(command, name, ...)
  local all = put_off[command .. name] or { command, name }
  put_off[command .. name] = all
  for _, argument in ipairs({ ... }) do all[#all + 1] = argument end
  if #all > MOST_ARGUMENTS then flush() end
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
-- He is among the active already. `place` is his turn number if he waited in mail with one; without it he goes
-- behind all others.
local function ring(kind, t, bell, stamp, data, place)
  call('HSET', pointer(t, kind), 'bell', bell, 'state', 'queued')
  call('HSET', 'rq:job:' .. bell, 'created_at', stamp, 'enqueued_at', stamp, 'data', data,
    'origin', t, 'description', kind .. '(' .. t .. ')', 'status', 'queued', 'timeout', 180,
    'result_ttl', 0, 'failure_ttl', FAILURE_TTL, 'started_at', '', 'ended_at', '', 'last_heartbeat', '',
    'worker_name', '', 'group_id', '', 'success_callback_name', '', 'failure_callback_name', '',
    'stopped_callback_name', '')
  call('RPUSH', 'rq:queue:' .. t, bell)
  later('SADD', 'rq:queues', 'rq:queue:' .. t)
  if place then later('ZADD', 'wsm:ready:' .. kind, place, t) else enrol('wsm:ready:' .. kind, t) end
end

-- Forget a bell that is claimed; a queued one stands among the ready, too.
local function unring(kind, t, bell)
  call('DEL', pointer(t, kind), 'rq:job:' .. bell)
  call('ZREM', 'rq:wip:' .. t, bell .. EXECUTION)
end

-- Pause a tenant: what waits for a worker is taken back, so that none of his bells can be claimed. What is
-- claimed already comes to its end.
local function pause(t, why)
  say('wsm:paused', t, why)
  for _, kind in ipairs({ 'turn', 'deliver' }) do
    call('ZREM', 'wsm:mail:' .. kind, t)
    local its = call('HMGET', pointer(t, kind), 'bell', 'state')
    if its[2] == 'queued' then
      call('LREM', 'rq:queue:' .. t, 1, its[1])
      unring(kind, t, its[1])
      call('ZREM', 'wsm:ready:' .. kind, t)
    end
  end
end

-- Add to what a tenant holds, or all of them. (+ 0: Lua's -0 is no integer to HINCRBY.)
local function add(hash, entries, bytes)
  call('HINCRBY', hash, 'entries', entries + 0)
  call('HINCRBY', hash, 'bytes', bytes + 0)
end

local function count(t, entries, bytes)
  add(key(t, 'load'), entries, bytes)
  add('wsm:load', entries, bytes)
end

-- Whether fields, from the given one to the end, are those that ACCEPT writes, in its order.
local function ours(fields, from)
  return #fields == from + 7 and fields[from] == 'at' and fields[from + 1]:find('^%d+$') and #fields[from + 1] < 16
    and fields[from + 2] == 'origin' and fields[from + 4] == 'session' and fields[from + 6] == 'body'
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

-- What a tenant has left: how many entries lie in his mailbox, and whether chats are put aside.
local function left(t)
  return call('XLEN', key(t, 'in')), call('EXISTS', key(t, 'parked')) == 1
end

local function runnable(t, waiting, aside)
  return waiting > 0 or aside and call('ZCOUNT', key(t, 'parked'), 0, 0) > 0
end

-- Clear away whatever an idle tenant no longer needs. Dead letters stay and keep nobody active.
local function leave(t, waiting, aside)
  local empty = waiting == 0 and not aside
  if empty then
    local rest = call('HMGET', key(t, 'load'), 'entries', 'bytes')
    if rest[1] then add('wsm:load', -rest[1], -(rest[2] or 0)) end
    call('DEL', key(t, 'in'), key(t, 'load'), key(t, 'attempts'))
    if said('wsm:few', t) then call('HDEL', 'wsm:few', t) end
  elseif waiting == 0 then
    call('DEL', key(t, 'in'))
  end
  if call('EXISTS', pointer(t, 'turn'), pointer(t, 'deliver'), 'rq:queue:' .. t, 'rq:wip:' .. t) > 0 then return end
  later('SREM', 'rq:queues', 'rq:queue:' .. t)
  if empty then later('SREM', 'wsm:active', t) end
end
