-- Approves the plan that the operator shows now. The approval counts for that plan only, so it fires at most one cutover.

local status, spec = obj.status or {}, obj.spec
local plan = (status.plan or {}).hash or ""
if status.phase ~= "Following" or plan == "" or spec.cancel then
  error("a cutover is approved while it is Following; it is " .. (status.phase or "Pending"), 0)
end
if (tonumber(status.observedGeneration) or 0) < (tonumber(obj.metadata.generation) or 0) then
  error("the operator has not seen the newest change of the spec yet; look at the plan again, then approve", 0)
end
if spec.cutover == nil then
  spec.cutover = {}
end
spec.cutover.approvedPlan = plan
if spec.cutover.rollback then
  spec.cutover.rollback = false
end
return obj
