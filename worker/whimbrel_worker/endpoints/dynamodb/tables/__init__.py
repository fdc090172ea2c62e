"""Tables as DynamoDB describes them: found, judged, made. Their items stand in items."""
