"""PolarDB for PostgreSQL where it differs from what speaks its protocols. No protocol stands here."""
