"""DynamoDB Local on loopback, a proxy of faults before any DynamoDB endpoint, items to move, and changes in them."""
