"""A stand-in for Aurora DSQL: a proxy in front of a real PostgreSQL that signs in, limits and conflicts as it does.

What it enforces and where it deviates is written down in docs/testbed-dsql.md. The product never imports it.
"""

from whimbrel_testbed.dsql.control import Control
from whimbrel_testbed.dsql.dials import Dials
from whimbrel_testbed.dsql.limits import Limits
from whimbrel_testbed.dsql.server import DSQLServer, dsql_server, serve

__all__ = ["Control", "DSQLServer", "Dials", "Limits", "dsql_server", "serve"]
