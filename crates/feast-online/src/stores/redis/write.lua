-- Writes rows of one view, each unless a newer one is stored.
-- KEYS: the hash of each entity. ARGV: seconds to live or 0, number of features, field of the event time, fields of the
-- features; then for each key the event time and the values of its features.
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

local call, unpack, keys, given = redis.call, unpack, KEYS, ARGV
local ttl, features, time_field = tonumber(given[1]), tonumber(given[2]), given[3]
-- unpack has a limit, so that a very wide row takes several calls; nobody sees it in between.
local most = 1000
-- The key, the field of the event time and the time, then each feature with its value.
local row = {false, time_field, false}
local function put_names(first, last)
  for feature = first, last do row[4 + 2 * (feature - first)] = given[3 + feature] end
end
local is_wide = features > most
if not is_wide then put_names(1, features) end
local length = 3 + 2 * features

local at = 3 + features
for number = 1, #keys do
  local key, time = keys[number], given[at + 1]
  local stored = call('HGET', key, time_field)
  if not stored or stored == time or not is_newer(stored, time) then
    row[1], row[3] = key, time
    if is_wide then
      for first = 1, features, most do
        local last = math.min(first + most - 1, features)
        put_names(first, last)
        for feature = first, last do row[5 + 2 * (feature - first)] = given[at + 1 + feature] end
        call('HSET', unpack(row, 1, 5 + 2 * (last - first)))
      end
    else
      local value = at + 2
      for place = 5, length, 2 do
        row[place] = given[value]
        value = value + 1
      end
      call('HSET', unpack(row, 1, length))
    end
    if ttl > 0 then call('EXPIRE', key, ttl) end
  end
  at = at + 1 + features
end
return 1
