"""The way back: changes of items from a log into their former source."""
