"""MySQL's replication stream, decoded: GTID sets, packets, events, rows. Applying the changes is elsewhere."""
