#!lua flags=allow-oom
-- UNQUARANTINE: forget webhooks of no known session; returns how many.
--   ARGV  ids
local done = 0
for _, id in ipairs(ARGV) do
  local entry = call('XRANGE', 'wsm:quarantine', id, id)[1]
  if entry then
    done = done + call('XDEL', 'wsm:quarantine', id)
    call('HINCRBY', 'wsm:load', 'quarantine_bytes', -#entry[2][10])
  end
end
return done
