-- Holds the work: workers finish their batch and stop. The source's log goes on ageing meanwhile.

local phase = (obj.status or {}).phase
if phase == "Completed" or phase == "Cancelled" then
  error("it is " .. phase .. " already: nothing is left to pause", 0)
end
obj.spec.paused = true
return obj
