"""One file a task: each puts source, target and engine together for one job."""
