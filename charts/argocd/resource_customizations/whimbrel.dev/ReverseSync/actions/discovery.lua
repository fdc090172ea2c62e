-- Which actions make sense for a ReverseSync now.

local paused = (obj.spec or {}).paused == true
local over = (obj.status or {}).phase == "Stopped"

return {
  ["pause"] = {displayName = "Pause", iconClass = "fa fa-fw fa-pause", disabled = over or paused},
  ["resume"] = {displayName = "Resume", iconClass = "fa fa-fw fa-play", disabled = over or not paused},
}
