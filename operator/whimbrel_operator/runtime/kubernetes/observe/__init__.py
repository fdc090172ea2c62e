"""What the objects of a cluster say of a task. Pure: nothing is read or written here."""
