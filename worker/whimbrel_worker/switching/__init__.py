"""Switches where applications find their database, and puts it back: one small process, under the user's account."""
