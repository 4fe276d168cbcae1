-- Check and record in one: adds ARGV[1] to the counter KEYS[1] unless that would pass the limit ARGV[2]. The new value, or
-- -1 if refused. Whole numbers, the cheapest that Redis has; Redis runs nothing else meanwhile.
local value = tonumber(redis.call('GET', KEYS[1]) or 0)
if value + ARGV[1] > tonumber(ARGV[2]) then
    return -1
end
return redis.call('INCRBY', KEYS[1], ARGV[1])
