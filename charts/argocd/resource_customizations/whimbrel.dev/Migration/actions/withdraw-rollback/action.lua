-- Takes a rollback back, as long as the target's journal does not have it; so another one may be asked for.

if obj.spec.cutover ~= nil and obj.spec.cutover.rollback then
  obj.spec.cutover.rollback = false
end
return obj
