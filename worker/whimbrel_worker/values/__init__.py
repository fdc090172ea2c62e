"""Types and their encodings: one codec for the snapshot, the stream and the comparison. No I/O."""
