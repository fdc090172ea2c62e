"""Amazon DynamoDB's own ways, and those of DynamoDB Local. Other services' stand with their endpoints.

Amazon DynamoDB Developer Guide, "Quotas"; API reference.
"""

from whimbrel_worker.values.behaviour import Behaviour

AWS = Behaviour(
    name="DynamoDB",
    consistent_reads=True,
    capacity=True,
    billing=True,
    page_limit=None,
    table_page_limit=100,
    streams=True,
    atomic_batches=False,
    transactions=True,
    arns=True,
)
