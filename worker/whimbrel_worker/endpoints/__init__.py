"""What is particular to one system. No endpoint knows another, a task or the engine beyond its ports."""
