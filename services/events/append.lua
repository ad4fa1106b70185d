-- Appends events to a turn's stream and announces each, unless the writer has been overtaken.
-- What its user's other devices hear of it is appended to the user's stream with them.
--
-- KEYS  1 stream, 2 fence, 3 the user's stream, if there is an event for it
-- ARGV  1 channel   2 step ('' for events of no step)   3 attempt
--       4 condition: 'any', 'first' (only into an empty stream), 'last' (the end of the stream),
--         'once:' and a name (only what was not appended under this name before), or the id of the
--         event that must be the stream's newest
--       5 retention in ms   6 sequence number of the last event
--       7 texts: 'whole' where the attempt's text is in the stream; with 'last', the steps and
--         attempts ('1:1 2:3') whose texts have to be in it
--       8 the user's channel   9 longest stream of a user   10 its retention in ms
--      11 name and 12 data of the event for it
--      13.. name, data, name, data, ...
-- Returns the id of the last event appended, or a word: 'fenced' (a newer attempt writes this
--         step, or the stream has ended), 'present' (it was not empty, or it is there already),
--         'unknown' (its newest event is another: Redis has lost something, e.g. in a restart
--         or failover).
local stream, fence = KEYS[1], KEYS[2]
local channel, step, attempt, condition = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local texts = ARGV[7]

if redis.call('HEXISTS', fence, 'done') == 1 then return 'fenced' end
local tail = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local newest_id = tail and tail[1]
if condition == 'first' and newest_id then return 'present' end
if string.sub(condition, 1, 5) == 'once:' then
  if redis.call('HSETNX', fence, condition, 1) == 0 then return 'present' end
elseif string.find(condition, '-') and condition ~= newest_id then
  return 'unknown'
end

if step ~= '' then
  local newest = tonumber(redis.call('HGET', fence, step) or '0')
  if attempt < newest then return 'fenced' end
  if attempt > newest then redis.call('HSET', fence, step, attempt) end
  if texts == 'whole' then redis.call('HSET', fence, 'whole:' .. step, attempt) end
end

-- A text was given up while Redis failed: without the rest of the stream, its readers turn to the
-- database, which has it all.
if condition == 'last' then
  for number, expected in string.gmatch(texts, '(%d+):(%d+)') do
    if redis.call('HGET', fence, 'whole:' .. number) ~= expected then
      redis.call('DEL', stream)
      redis.call('PUBLISH', channel, 'deleted')
      break
    end
  end
end

local count = #ARGV
for index = 13, count, 2 do
  local id = '*'
  if condition == 'last' and index == count - 1 then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    if newest_id then now = math.max(now, tonumber(string.match(newest_id, '^%d+'))) end
    id = string.format('%.0f-%s', now, ARGV[6])
    redis.call('HSET', fence, 'done', 1)
  end
  local name, data = ARGV[index], ARGV[index + 1]
  newest_id = redis.call('XADD', stream, id, 'n', name, 'd', data)
  redis.call('PUBLISH', channel, newest_id .. '\n' .. name .. '\n' .. data)
end
if KEYS[3] then
  local name, data = ARGV[11], ARGV[12]
  local id = redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[9], '*', 'n', name, 'd', data)
  redis.call('PEXPIRE', KEYS[3], ARGV[10])
  redis.call('PUBLISH', ARGV[8], id .. '\n' .. name .. '\n' .. data)
end
redis.call('PEXPIRE', stream, ARGV[5])
redis.call('PEXPIRE', fence, ARGV[5])
return newest_id
