-- Asks for HOSTS hosts, in no order.
local count = tonumber(os.getenv("HOSTS"))
local requests, next_one = {}, 0
init = function()
    math.randomseed(42)
    for index = 1, math.min(count, 10000) do
        requests[index] = wrk.format("GET", "/", { ["Host"] = "app-" .. math.random(0, count - 1) .. ".localhost" })
    end
end
request = function()
    next_one = next_one % #requests + 1
    return requests[next_one]
end
