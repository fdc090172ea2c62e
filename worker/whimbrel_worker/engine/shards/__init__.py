"""Following a change log that is divided into shards: lineage, sharing, writing, lag, drains. No system's own calls."""
