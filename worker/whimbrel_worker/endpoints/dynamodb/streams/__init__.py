"""DynamoDB Streams: switched on, listed, read; positions are given, not kept here."""
