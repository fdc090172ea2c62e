"""Applies the change log: routing, batches, lanes and where they resume. How the log is read stands in endpoints."""
