-- Holds the work: workers finish their batch and stop. The source's log goes on ageing meanwhile.

obj.spec.paused = true
return obj
