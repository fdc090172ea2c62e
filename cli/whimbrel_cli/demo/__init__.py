"""The demo: servers, the example on them, and the people around a migration. Its options stand in commands."""
