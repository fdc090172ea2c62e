-- The health of a ReverseSync. Healthy: changes flow back now, by a young word of its worker, and its slot is well.

local conditions = {}

local function health(word, message)
  return {status = word, message = message}
end

local function is(kind, word)
  return conditions[kind] ~= nil and conditions[kind].status == word
end

local function because(kind, reason)
  return conditions[kind] ~= nil and conditions[kind].reason == reason
end

local function told(kind, otherwise)
  local found = conditions[kind]
  if found ~= nil and found.message ~= nil and found.message ~= "" then
    return found.message
  end
  return otherwise
end

if obj.status == nil then
  return health("Progressing", "no operator has looked at it yet; see that one runs and watches this namespace")
end

local status = obj.status
local phase = status.phase or "Pending"
for _, each in ipairs(status.conditions or {}) do
  conditions[each.type] = each
end

if (tonumber(status.observedGeneration) or 0) < (tonumber(obj.metadata.generation) or 0) then
  return health("Progressing", "the operator has not seen the newest change of the spec yet")
end
if is("Stalled", "True") then
  return health("Degraded", conditions.Stalled.reason .. ": " .. told("Stalled", "a person must act"))
end
if is("SlotHealthy", "False") then
  return health("Degraded", conditions.SlotHealthy.reason .. ": " .. told("SlotHealthy", "the slot is not well"))
end
if because("Ready", "TableStopped") or because("Ready", "NotDisarmed") then
  return health("Degraded", told("Ready", "a person must act"))
end
if phase == "Stopped" then
  return health("Progressing", "it has ended (" .. (conditions.Ready or {reason = phase}).reason .. "): "
    .. told("Ready", "what it had made is taken away"))
end
if because("Ready", "Paused") then
  return health("Suspended", "it is paused, and " .. told("Ready", "the slot keeps the server's log meanwhile")
    .. "; to go on set spec.paused to false (in Argo CD: the action resume)")
end
if is("Ready", "True") and status.held then
  return health("Progressing", "a rollback holds it: nothing is taken from the log")
end
if is("Ready", "True") then
  local lag = ""
  if status.lag ~= nil and status.lag ~= "" then
    lag = ", lag " .. status.lag
  end
  return health("Healthy", "changes flow back" .. lag)
end
if because("Reconciling", "Retrying") then
  return health("Progressing", phase .. ": " .. told("Reconciling", "it is tried again"))
end
return health("Progressing", phase .. ": " .. told("Ready", told("Reconciling", "the way back begins")))
