"""Kinesis data streams as the change log of tables: described, read, put in order. Positions are not kept here."""
