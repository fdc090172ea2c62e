"""Targets that speak PostgreSQL's protocol: statements, control tables and sessions, by a Profile."""
