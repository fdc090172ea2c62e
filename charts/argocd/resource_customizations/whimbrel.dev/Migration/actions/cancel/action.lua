-- Ends the migration for good, without a cutover. What was copied stays in the target.

local phase = (obj.status or {}).phase
if phase == "Completed" or phase == "Cancelled" then
  error("it is " .. phase .. " already: nothing is left to cancel", 0)
end
obj.spec.cancel = true
return obj
