-- The health of a Migration. Healthy means one thing: all is in the target and the traffic may be there.
-- Suspended waits for a person's word, Degraded needs a person's hands, Progressing gets on by itself.

local conditions = {}
local gates = {
  "LagWithinThreshold", "ValidationPassed", "NoStoppedTable", "IndexesReady", "RetentionSafe", "ReverseSyncReady",
  "CutoverDue", "CutoverApproved",
}

local paused = "it is paused; to go on set spec.paused to false (in Argo CD: the action resume)"

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

local function first(text, otherwise)
  if text ~= nil and text ~= "" then
    return text
  end
  return otherwise
end

local function closed_gates(asked)
  local shut = {}
  for _, kind in ipairs(gates) do
    if conditions[kind] ~= nil and conditions[kind].status ~= "True" then
      table.insert(shut, told(kind, kind .. " is " .. conditions[kind].status))
    end
  end
  if asked.targetExclusive == "Require" and conditions.TargetExclusive ~= nil and not is("TargetExclusive", "True") then
    table.insert(shut, told("TargetExclusive", "others may write to the target"))
  end
  return table.concat(shut, "; ")
end

local function approval()
  return told("CutoverApproved", "approve the plan by spec.cutover.approvedPlan") .. " (in Argo CD: the action approve)"
end

-- Where it stands, for a reader: Snapshot 64%, 21m5s left: copying rows
local function doing(status, phase)
  local where = phase
  if phase == "Snapshot" then
    where = where .. " " .. first(status.progress, "0%")
    if first(status.remaining, nil) ~= nil then
      where = where .. ", " .. status.remaining .. " left"
    end
  elseif first(status.lag, nil) ~= nil then
    where = where .. ", lag " .. status.lag
  end
  return where .. ": " .. told("Reconciling", "the operator is at work")
end

local function completed(status, cutover, asked)
  if cutover.state == "RollingBack" then
    return health("Progressing", "rolling back: " .. first(cutover.message, "the target's writes must stop"))
  end
  if cutover.rollback ~= nil and cutover.rollback.givenUp then
    return health("Degraded", first(cutover.message, "the rollback was given up"))
  end
  if is("HooksSucceeded", "False") then
    return health("Degraded", told("HooksSucceeded", "a hook or a switch failed"))
  end
  if because("Retired", "RetireFailed") then
    return health("Degraded", told("Retired", "retiring failed"))
  end
  if asked.rollback then
    return health("Progressing", first(cutover.message, "a rollback is asked for"))
  end
  if because("HooksSucceeded", "InProgress") and is("Paused", "True") then
    return health("Suspended", told("HooksSucceeded", "applications are switched to the target") .. "; " .. paused)
  end
  if because("HooksSucceeded", "InProgress") then
    return health("Progressing", told("HooksSucceeded", "applications are switched to the target"))
  end
  if because("HooksSucceeded", "NotRunHere") then
    return health("Healthy", told("HooksSucceeded", "hooks and switches were not run"))
  end
  return health("Healthy", first(cutover.message, "the target has everything; point the application at it"))
end

-- What needs a person's hands, whatever the phase; nil where nothing does.
local function trouble(cutover)
  if is("NoStoppedTable", "False") then
    return health("Degraded", told("NoStoppedTable", "a table has stopped"))
  end
  if is("RetentionNear", "True") then
    return health("Degraded", told("RetentionNear", "the source's log runs out"))
  end
  if is("HooksSucceeded", "False") then
    return health("Degraded", told("HooksSucceeded", "a hook failed"))
  end
  if because("ValidationPassed", "Different") then
    return health("Degraded", told("ValidationPassed", "source and target differ"))
  end
  if first(cutover.leftUnread, nil) ~= nil then
    return health("Degraded", cutover.leftUnread)
  end
  return nil
end

local function following(status, cutover, asked)
  local state = cutover.state
  if state == "TimedOut" then
    if asked.mode == "Automatic" then
      return health("Progressing", first(cutover.message, "the cutover timed out") .. "; it is tried again by itself")
    end
    return health("Suspended", first(cutover.message, "the cutover timed out") .. "; " .. approval())
  end
  if state == "RolledBack" then
    return health("Suspended", first(cutover.message, "the traffic is at the source again") .. "; " .. approval())
  end
  if state == "AwaitingApproval" and not is("CutoverApproved", "True") then
    local due = ""
    if conditions.CutoverDue ~= nil and not is("CutoverDue", "True") then
      due = "; " .. told("CutoverDue", "its time has not come")
    end
    return health("Suspended", approval() .. due)
  end
  if because("Reconciling", "Retrying") then
    return health("Progressing", doing(status, "Following"))
  end
  local shut = closed_gates(asked)
  if shut ~= "" then
    return health("Progressing", "Following, these hold the cutover back: " .. shut)
  end
  return health("Progressing", "Following: the cutover begins as the plan is approved and every gate is open")
end

if obj.status == nil then
  return health("Progressing", "no operator has looked at it yet; see that one runs and watches this namespace")
end

local status, spec = obj.status, obj.spec or {}
local asked, cutover = spec.cutover or {}, status.cutover or {}
local phase = first(status.phase, "Pending")
for _, each in ipairs(status.conditions or {}) do
  conditions[each.type] = each
end

if (tonumber(status.observedGeneration) or 0) < (tonumber(obj.metadata.generation) or 0) then
  return health("Progressing", "the operator has not seen the newest change of the spec yet")
end
if is("Stalled", "True") then
  return health("Degraded", conditions.Stalled.reason .. ": " .. told("Stalled", "a person must act"))
end
if phase == "Completed" then
  return completed(status, cutover, asked)
end
if phase == "Cancelled" then
  local opened = ""
  if cutover.sourceFrozen then
    opened = "; what stopped the writes to the source is being undone"
  end
  return health("Degraded", "cancelled: what was copied stays in the target, which is not whole" .. opened)
end
if spec.cancel then
  return health("Progressing", "it is being cancelled")
end

local bad = trouble(cutover)
if bad ~= nil then
  return bad
end
if because("Reconciling", "Held") then
  return health("Suspended", phase .. ": " .. paused)
end
if phase == "CuttingOver" then
  return health("Progressing", first(cutover.state, "Freezing") .. ": " .. first(cutover.message, told("Reconciling", "cutting over")))
end
if phase == "Following" then
  return following(status, cutover, asked)
end
if cutover.state == "RolledBack" then
  return health("Progressing", first(cutover.message, "the traffic is at the source again"))
end
return health("Progressing", doing(status, phase))
