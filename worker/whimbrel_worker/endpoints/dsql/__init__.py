"""Aurora DSQL: its limits and its sign-in. The statements are those of any PostgreSQL target."""
