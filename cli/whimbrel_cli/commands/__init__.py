"""The subcommands, one file for each group of them. What several share stands beside this folder."""
