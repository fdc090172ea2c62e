"""Moves and compares data: one task a process. Nothing here decides what comes next."""
