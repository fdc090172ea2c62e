"""A stand-in for PolarDB for PostgreSQL's DynamoDB-compatible endpoint, with a real PostgreSQL behind it.

What it does and where it deviates is written down in docs/testbed-polardb.md. The product never imports it.
"""

from whimbrel_testbed.polardb.dials import Dials
from whimbrel_testbed.polardb.server import Control, PolarDBServer, Postgres, polardb_server

__all__ = ["Control", "Dials", "PolarDBServer", "Postgres", "polardb_server"]
