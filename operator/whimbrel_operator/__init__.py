"""Whimbrel's operator: decides what a migration needs next and orders it. No database is touched from here."""
