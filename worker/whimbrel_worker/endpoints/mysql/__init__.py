"""MySQL as a source: sign-in, discovery, checks, reading and the change log."""
