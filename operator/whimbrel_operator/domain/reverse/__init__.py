"""The life of a ReverseSync: what it wants, what is said of it, how it is let go."""
