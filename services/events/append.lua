-- Appends events to a turn's stream and announces each, unless the writer has been overtaken.
--
-- KEYS  1 stream, 2 fence
-- ARGV  1 channel   2 step ('' for events of no step)   3 attempt
--       4 condition: 'any', 'first' (only into an empty stream), 'known' (only into one that is
--         there), 'last' (the end of the stream)
--       5 retention in ms   6 sequence number of the last event
--       7.. name, data, name, data, ...
-- Returns 'ok', 'fenced' (a newer attempt writes this step, or the stream has ended),
--         'unknown' (condition 'known', and Redis has forgotten the stream), 'present'.
local stream, fence = KEYS[1], KEYS[2]
local channel, step, attempt, condition = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

if redis.call('HEXISTS', fence, 'done') == 1 then return 'fenced' end
local present = redis.call('EXISTS', stream) == 1
if condition == 'first' and present then return 'present' end
if condition == 'known' and not present then return 'unknown' end

if step ~= '' then
  local newest = tonumber(redis.call('HGET', fence, step) or '0')
  if attempt < newest then return 'fenced' end
  if attempt > newest then redis.call('HSET', fence, step, attempt) end
end

local count = #ARGV
for index = 7, count, 2 do
  local id = '*'
  if condition == 'last' and index == count - 1 then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local tail = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
    if tail[1] then now = math.max(now, tonumber(string.match(tail[1][1], '^%d+'))) end
    id = string.format('%.0f-%s', now, ARGV[6])
    redis.call('HSET', fence, 'done', 1)
  end
  local name, data = ARGV[index], ARGV[index + 1]
  id = redis.call('XADD', stream, id, 'n', name, 'd', data)
  redis.call('PUBLISH', channel, id .. '\n' .. name .. '\n' .. data)
end
redis.call('PEXPIRE', stream, ARGV[5])
redis.call('PEXPIRE', fence, ARGV[5])
return 'ok'
