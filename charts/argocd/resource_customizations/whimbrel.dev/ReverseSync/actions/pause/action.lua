-- Holds the stream; its slot makes the server keep its log until it is resumed or deleted.

obj.spec.paused = true
return obj
