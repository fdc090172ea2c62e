"""How a worker tells where it stands and hears what is ordered. What a report says is the tasks' business."""
