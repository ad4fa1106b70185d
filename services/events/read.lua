-- Reads a page of a turn's stream: a reader holds no more of a long turn than that.
--
-- KEYS  1 stream
-- ARGV  1 id of the event before the page, or ''   2 bytes of the page
-- Returns the name of the stream's first event, or ''; 1 if the event before the page is in the
--         stream; 1 if the stream ends with the page; and the entries. A page has one entry at
--         least, however large, unless there is none.
local stream, after, max_bytes = KEYS[1], ARGV[1], tonumber(ARGV[2])

local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
if not first then return {'', 0, 1, {}} end
local found, from = 0, '-'
if after ~= '' then
  found = #redis.call('XRANGE', stream, after, after)
  from = '(' .. after
end

local page, bytes = {}, 0
while true do
  local entries = redis.call('XRANGE', stream, from, '+', 'COUNT', 16)
  for _, entry in ipairs(entries) do
    bytes = bytes + string.len(entry[2][4])
    if page[1] and bytes > max_bytes then return {first[2][2], found, 0, page} end
    page[#page + 1] = entry
  end
  if #entries < 16 then return {first[2][2], found, 1, page} end
  from = '(' .. entries[#entries][1]
end
