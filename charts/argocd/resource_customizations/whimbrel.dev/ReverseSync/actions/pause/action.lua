-- Holds the stream; its slot makes the server keep its log until it is resumed or deleted.

if (obj.status or {}).phase == "Stopped" then
  error("it is Stopped already: nothing is left to pause", 0)
end
obj.spec.paused = true
return obj
