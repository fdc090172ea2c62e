"""The writers of a DynamoDB source stopped by a statement in its tables' resource-based policies."""
