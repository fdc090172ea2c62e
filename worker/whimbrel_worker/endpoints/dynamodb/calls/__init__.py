"""How a DynamoDB service is called: addresses, keys, signatures, retries, pace. What is asked stands beside."""
