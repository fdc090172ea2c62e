"""Items read and written as bytes: Scan, BatchGetItem, BatchWriteItem. Positions of that work stand in control."""
