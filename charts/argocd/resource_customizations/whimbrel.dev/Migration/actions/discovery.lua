-- Which actions make sense for a Migration now. Those that could come too late look again before they change anything.

local status, spec = obj.status or {}, obj.spec or {}
local asked = spec.cutover or {}
local plan = (status.plan or {}).hash or ""
local phase = status.phase or "Pending"
local over = phase == "Completed" or phase == "Cancelled"
local seen = (tonumber(status.observedGeneration) or 0) >= (tonumber(obj.metadata.generation) or 0)

local approved, ready = false, false
for _, each in ipairs(status.conditions or {}) do
  if each.type == "CutoverApproved" then
    approved = each.status == "True"
  elseif each.type == "RollbackReady" then
    ready = each.status == "True"
  end
end

return {
  ["approve"] = {
    displayName = "Approve the cutover",
    iconClass = "fa fa-fw fa-check",
    disabled = not (phase == "Following" and not spec.cancel and seen and plan ~= "" and not approved),
  },
  ["pause"] = {
    displayName = "Pause",
    iconClass = "fa fa-fw fa-pause",
    disabled = over or spec.cancel == true or spec.paused == true,
  },
  ["resume"] = {
    displayName = "Resume",
    iconClass = "fa fa-fw fa-play",
    -- After the switch too: while it is paused no hook begins that is still to come.
    disabled = spec.paused ~= true,
  },
  ["cancel"] = {
    displayName = "Cancel for good",
    iconClass = "fa fa-fw fa-ban",
    disabled = over or spec.cancel == true,
  },
  ["rollback"] = {
    displayName = "Go back to the source",
    iconClass = "fa fa-fw fa-undo",
    disabled = not (phase == "Completed" and seen and ready and asked.rollback ~= true),
  },
  ["withdraw-rollback"] = {
    displayName = "Withdraw the rollback",
    iconClass = "fa fa-fw fa-times",
    disabled = not (phase == "Completed" and asked.rollback == true),
  },
}
