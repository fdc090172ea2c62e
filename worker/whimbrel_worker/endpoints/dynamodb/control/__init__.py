"""The control table on a target: workers, chunks, shards, journal, epochs. Sessions, which write under it: session."""
