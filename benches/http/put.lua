-- One update a request, over 64 series in turn. The requests are made once: the client shares the cores.
local key, requests, turn = os.getenv("KEY"), {}, 0

function init()
    local headers = { ["Authorization"] = "Bearer " .. key, ["Content-Type"] = "application/json" }
    for series = 1, 64 do
        requests[series] = wrk.format("PUT", "/api/v1/metrics/bench_" .. series, headers, '{"value": 1.5}')
    end
end

function request()
    turn = turn % 64 + 1
    return requests[turn]
end

function done(summary, latency)
    local errors = summary.errors
    local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
    io.write(string.format("RESULT %d %d %d %d\n", summary.requests * 1e6 / summary.duration,
        latency:percentile(50), latency:percentile(99), failed))
end
