-- The health of a Validation. Healthy: both sides were compared and are equal.

local conditions = {}

local function health(word, message)
  return {status = word, message = message}
end

local function told(kind, otherwise)
  local found = conditions[kind]
  if found ~= nil and found.message ~= nil and found.message ~= "" then
    return found.message
  end
  return otherwise
end

local function compared(status)
  if (status.tablesCompared or 0) == 0 then
    return (status.rowsCompared or 0) .. " rows"
  end
  return (status.rowsCompared or 0) .. " rows in " .. status.tablesCompared .. " tables"
end

local function completed(status)
  local found = status.differences or {}
  if status.result == "Equal" then
    return health("Healthy", "source and target are equal: " .. compared(status))
  end
  if status.result == "Different" then
    return health("Degraded", "source and target differ: " .. (found.missing or 0) .. " missing, " .. (found.extra or 0)
      .. " extra, " .. (found.changed or 0) .. " changed in " .. compared(status)
      .. "; a Validation by whimbrel run lists them")
  end
  return health("Degraded", (status.inconclusive or 0) .. " rows changed faster than they could be compared, of "
    .. compared(status) .. "; compare again while there is less traffic")
end

if obj.status == nil then
  return health("Progressing", "no operator has looked at it yet; see that one runs and watches this namespace")
end

local status = obj.status
for _, each in ipairs(status.conditions or {}) do
  conditions[each.type] = each
end

if (tonumber(status.observedGeneration) or 0) < (tonumber(obj.metadata.generation) or 0) then
  return health("Progressing", "the operator has not seen the newest change of the spec yet")
end
if conditions.Stalled ~= nil and conditions.Stalled.status == "True" then
  return health("Degraded", conditions.Stalled.reason .. ": " .. told("Stalled", "a person must act"))
end
if status.phase == "Completed" then
  return completed(status)
end
local progress = ""
if status.phase == "Running" and status.progress ~= nil and status.progress ~= "" then
  progress = " " .. status.progress
end
return health("Progressing", (status.phase or "Pending") .. progress .. ": " .. told("Reconciling", "both sides are compared"))
