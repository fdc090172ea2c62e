"""What a DynamoDB-compatible service does, as far as services differ. Their own values stand with their endpoints.

Who calls a service is given one of these and knows no service by name.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One service's ways. `name` is for messages."""

    name: str
    consistent_reads: bool
    """Whether ConsistentRead may be asked for; where not, its reads are of the newest state anyway."""
    capacity: bool
    """Whether ReturnConsumedCapacity is worth asking."""
    billing: bool
    """Whether CreateTable takes BillingMode and throughput, and DescribeTable tells them."""
    page_limit: int | None
    """The Limit to ask for in Scan and Query, where the service gives few items without; None for none."""
    table_page_limit: int
    """The Limit to ask for in ListTables."""
    streams: bool
    """Whether tables may have streams."""
    atomic_batches: bool
    """Whether BatchWriteItem is all or nothing, so that one bad item refuses all and none comes back unprocessed."""
    transactions: bool
    """Whether TransactWriteItems is documented; where not, it is probed before it is used."""
    arns: bool
    """Whether tables have ARNs that tell accounts apart."""
    batch_items: int = 25
    """Items of one BatchWriteItem."""
    batch_bytes: int = 4 << 20
    """Bytes of one BatchWriteItem's body, well below the service's own bound of 16 MB."""
    batch_keys: int = 100
    """Keys of one BatchGetItem."""
    transaction_items: int = 100
    """Items of one TransactWriteItems."""
