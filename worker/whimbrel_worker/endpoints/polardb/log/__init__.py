"""The log of PolarDB's PostgreSQL: its stream, its messages, what they say happened to rows. No item is made here."""
