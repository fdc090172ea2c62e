"""The worker as it would write to Aurora DSQL without COPY, towards plain PostgreSQL: upserts from arrays, rows
capped."""

import sys
from dataclasses import replace

from whimbrel_worker.endpoints.dsql import cluster
from whimbrel_worker.endpoints.postgres import server
from whimbrel_worker.endpoints.postgres.target import PostgresTarget
from whimbrel_worker.runner import main

if __name__ == "__main__":
    server.PROFILE = replace(
        server.PROFILE,
        rows_per_transaction=cluster.PROFILE.rows_per_transaction,
        bytes_per_transaction=cluster.PROFILE.bytes_per_transaction,
    )
    PostgresTarget.probe_write_path = lambda _self: "unnest"  # type: ignore[assignment, method-assign]
    sys.exit(main(sys.argv[1:]))
