#!lua flags=allow-oom
-- DEAD: let dead letters of a tenant live again, or drop them; returns how many.
-- Those that live again return under their original ids, so that they take the place that they had, among what
-- returns without a chat: the turn knows whose they are, and joins them to a chat that is put aside.
--   ARGV  tenant, replay or drop, the place of what belongs to no chat, ids of letters, in the order of their entries
local t, verb, place = ARGV[1], ARGV[2], ARGV[3]
local dead = key(t, 'dead')
local done, bytes, live, live_bytes = 0, 0, 0, 0
for i = 4, #ARGV do
  local letter = call('XRANGE', dead, ARGV[i], ARGV[i])[1]
  if letter then
    local id, text, whole = letter[2][2], letter[2][12] or '', ours(letter[2], 5)
    if verb == 'replay' and whole then
      local added = redis.pcall('XADD', stream(t, place), id, unpack(letter[2], 5))
      if type(added) == 'table' then call('XADD', stream(t, place), '*', unpack(letter[2], 5)) end
      live, live_bytes = live + 1, live_bytes + #text
    end
    if verb == 'drop' or whole then
      call('XDEL', dead, ARGV[i])
      done, bytes = done + 1, bytes + #text
    end
  end
end
if done > 0 then count_dead(-done, -bytes) end
if call('XLEN', dead) == 0 then
  call('DEL', dead)
  call('SREM', 'wsm:dead', t)
end
if live > 0 then
  count(t, live, live_bytes)
  call('ZADD', key(t, 'parked'), 'NX', 0, place)
  call('SADD', 'wsm:active', t)
  if call('EXISTS', pointer(t, 'turn')) == 0 and mail('turn', t) then wake('turn') end
end
return done
