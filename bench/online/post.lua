-- wrk -s post.lua URL -- FILE PATH [MILLISECONDS]: posts the lines of FILE in turn; each connection pauses between two.
-- wrk knows whole milliseconds: pauses are so long on average.
local requests, count, at, pause = {}, 0, 0, 0

function init(arguments)
  pause = tonumber(arguments[3] or 0)
  for line in io.lines(arguments[1]) do
    count = count + 1
    requests[count] = wrk.format("POST", arguments[2], {["Content-Type"] = "application/json"}, line)
  end
  if pause > 0 then
    delay = function() return math.floor(pause + math.random()) end
  end
end

function request()
  at = at % count + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('{"requests":%d,"microseconds":%d,"bad":%d,"p50":%d,"p99":%d,"max":%d}\n',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
