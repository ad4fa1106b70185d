-- Takes a lease on an open stream of a user, unless they have as many as their plan allows.
--
-- KEYS  1 sorted set of the user's leases, by the time at which each expires in ms
-- ARGV  1 limit   2 name of the lease   3 lifetime in ms   4.. leases that have ended
-- Returns the leases that stand in the way, or none if it is taken.
local leases = KEYS[1]
for index = 4, #ARGV do redis.call('ZREM', leases, ARGV[index]) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', leases, '-inf', now)
if redis.call('ZCARD', leases) >= tonumber(ARGV[1]) then
  return redis.call('ZRANGE', leases, 0, -1)
end
redis.call('ZADD', leases, now + ARGV[3], ARGV[2])
redis.call('PEXPIRE', leases, ARGV[3])
return {}
