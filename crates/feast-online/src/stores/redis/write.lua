-- Writes rows of one view, each unless a newer one is stored.
-- KEYS: the hash of each entity. ARGV: seconds to live or 0, parts per row, field of the event time; then for each key the
-- event time and the parts of the row. A part is a list of fields and values in MessagePack, which is taken apart in C.
local byte = string.byte

-- Seconds and nanoseconds of a google.protobuf.Timestamp; numbers here have 53 bits, so that a negative one (ten bytes,
-- two's complement) is built from its complement. Nothing for bytes that are no time.
local function instant(bytes)
  local seconds, nanos, at = 0, 0, 1
  while at <= #bytes do
    local tag = byte(bytes, at)
    local number, complement, scale, length = 0, 0, 1, 0
    repeat
      length = length + 1
      local group = byte(bytes, at + length)
      if not group or length > 10 then return nil end
      number = number + group % 128 * scale
      if length < 10 then complement = complement + (127 - group % 128) * scale end
      scale = scale * 128
    until group < 128
    if length == 10 then number = -complement - 1 end
    if tag == 8 then seconds = number elseif tag == 16 then nanos = number else return nil end
    at = at + length + 1
  end
  return seconds, nanos
end

local function is_newer(stored, given)
  if stored == given then return false end
  local stored_seconds, stored_nanos = instant(stored)
  local seconds, nanos = instant(given)
  if not stored_seconds or not seconds then return false end
  return stored_seconds > seconds or stored_seconds == seconds and stored_nanos > nanos
end

local call, given, part_of = redis.call, ARGV, cmsgpack.unpack
local ttl, parts, time_field = tonumber(given[1]), tonumber(given[2]), given[3]
local at = 4
for number = 1, #KEYS do
  local key, time = KEYS[number], given[at]
  local stored = call('HGET', key, time_field)
  if not (stored and is_newer(stored, time)) then
    -- Nobody sees the row between its parts.
    for part = at + 1, at + parts do call('HSET', key, unpack(part_of(given[part]))) end
    if ttl > 0 then call('EXPIRE', key, ttl) end
  end
  at = at + 1 + parts
end
return 1
