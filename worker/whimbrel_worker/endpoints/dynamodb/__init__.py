"""DynamoDB and what speaks its protocol: client, source, streams, target and control table. Dialects are values."""
