-- Asks for the way back to the source. Stop the application's writes to the target then.

local status, spec = obj.status or {}, obj.spec
if status.phase ~= "Completed" then
  error("only what is Completed can be rolled back", 0)
end
local ready = "RollbackReady is not known"
for _, each in ipairs(status.conditions or {}) do
  if each.type == "RollbackReady" then
    ready = each.status == "True" and "" or "it cannot go back now: " .. (each.message or each.reason)
  end
end
if ready ~= "" then
  error(ready, 0)
end
if spec.cutover == nil then
  spec.cutover = {}
end
if spec.cutover.rollback then
  error("a rollback is asked for already; to try one again withdraw it first", 0)
end
spec.cutover.rollback = true
return obj
