"""The ways of PolarDB for PostgreSQL's DynamoDB-compatible endpoint, where they differ from Amazon DynamoDB's.

Alibaba Cloud, PolarDB for PostgreSQL user guide, "DynamoDB compatibility": ConsistentRead cannot be asked for, capacity
figures are ignored, Scan, Query and ListTables give 100 items unless Limit is set, batches are atomic. Streams and
TransactWriteItems are not documented.
"""

from whimbrel_worker.values.behaviour import Behaviour

POLARDB = Behaviour(
    name="PolarDB",
    consistent_reads=False,
    capacity=False,
    billing=False,
    page_limit=1000,
    table_page_limit=100,
    streams=False,
    atomic_batches=True,
    transactions=False,
    arns=False,
)
