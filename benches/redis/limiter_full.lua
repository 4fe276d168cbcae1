-- Check and record with what a plan needs: decimals, the limit looked up (ARGV[2] where none is set), a counter an hour that
-- expires. 1, or -1 if refused.
local limit = tonumber(redis.call('HGET', 'limits', KEYS[1]) or ARGV[2])
local counter = KEYS[1] .. ':' .. math.floor(redis.call('TIME')[1] / 3600)
if tonumber(redis.call('GET', counter) or 0) + ARGV[1] > limit then
    return -1
end
redis.call('INCRBYFLOAT', counter, ARGV[1])
redis.call('EXPIRE', counter, 7200)
return 1
