"""Compares source and target: pairing rows, re-checking those in flight, collecting what differs. Decides nothing."""
