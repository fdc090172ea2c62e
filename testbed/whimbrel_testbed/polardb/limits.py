"""DynamoDB's numbers, and PolarDB's where they differ (see docs/testbed-polardb.md)."""

from __future__ import annotations

ITEM_BYTES = 400 * 1024
PAGE_BYTES = 1024 * 1024
PAGE_ITEMS = 100
"""PolarDB's: items or table names in a page where the call sets no Limit."""
BATCH_WRITES = 25
BATCH_GETS = 100
BATCH_BYTES = 16 * 1024 * 1024
"""Of the items of a BatchGetItem; 25 writes of an item's most bytes stay below it."""
REQUEST_BYTES = 16 * 1024 * 1024
"""Of the body of any call."""
TRANSACTION_ITEMS = 100
TRANSACTION_BYTES = 4 * 1024 * 1024
SEGMENTS = 1_000_000
PARTITION_KEY_BYTES = 2048
SORT_KEY_BYTES = 1024
NESTING = 32
NUMBER_DIGITS = 38
NUMBER_MAGNITUDE = 126
"""Numbers reach up to 9.99…E+125, …"""
NUMBER_SMALLEST = -130
"""… and down to 1E-130."""
EXPRESSION_BYTES = 4096
GLOBAL_INDEXES = 20
LOCAL_INDEXES = 5
CLOCK_SKEW_SECONDS = 900.0
IDEMPOTENCE_SECONDS = 600.0
