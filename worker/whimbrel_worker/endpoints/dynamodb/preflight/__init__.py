"""What is looked at before the first write: settings, permissions, how long the copy will take. Nothing is changed."""
