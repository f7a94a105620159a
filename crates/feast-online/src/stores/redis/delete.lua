-- Removes the fields of views from hashes, and hashes in which no view is left.
-- KEYS: the hashes. ARGV: the fields.
local most = 1000
for _, key in ipairs(KEYS) do
  local removed = 0
  for first = 1, #ARGV, most do
    local count = redis.pcall('HDEL', key, unpack(ARGV, first, math.min(first + most - 1, #ARGV)))
    if type(count) == 'number' then removed = removed + count end
  end
  if removed > 0 then
    local left = false
    for _, field in ipairs(redis.call('HKEYS', key)) do
      if string.sub(field, 1, 4) == '_ts:' then left = true break end
    end
    if not left then redis.call('DEL', key) end
  end
end
return 1
