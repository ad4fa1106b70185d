-- Appends an event to a user's stream and announces it, as append.lua does beside a turn's events.
--
-- KEYS  1 the user's stream
-- ARGV  1 channel   2 longest stream   3 retention in ms   4 name   5 data
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'n', ARGV[4], 'd', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PUBLISH', ARGV[1], id .. '\n' .. ARGV[4] .. '\n' .. ARGV[5])
