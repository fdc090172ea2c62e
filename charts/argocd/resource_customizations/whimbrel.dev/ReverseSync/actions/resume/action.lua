-- Goes on from where it was paused.

obj.spec.paused = false
return obj
