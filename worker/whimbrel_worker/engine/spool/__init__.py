"""A durable log of our own for changes that outlast the source's: segments on a volume. Following shards: in shards."""
