-- wrk -s load.lua URL -- METHOD BODY-FILE|- UNIQUE|- "Name: value"...
-- UNIQUE is a word that begins the number which makes every request one of its own.

local unique, count = nil, 0

function init(args)
  wrk.method = args[1]
  if args[2] ~= "-" then
    local file = assert(io.open(args[2], "rb"))
    wrk.body = file:read("*a")
    file:close()
  end
  for i = 4, #args do
    local name, value = string.match(args[i], "^([^:]+): (.*)$")
    wrk.headers[name] = value
  end
  if args[3] ~= "-" then
    unique = wrk.path .. (string.find(wrk.path, "?", 1, true) and "&" or "?") .. "n=" .. args[3]
    request = numbered
  end
end

function numbered()
  count = count + 1
  return wrk.format(nil, unique .. count)
end
