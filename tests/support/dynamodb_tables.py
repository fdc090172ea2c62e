"""Tables with and without streams at a DynamoDB endpoint, and all that a stream of one shard has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whimbrel_testbed.dynamodb.client import dynamodb_client

if TYPE_CHECKING:
    from whimbrel_testbed.dynamodb.local import DynamoDBServer

STREAM = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}


def make_table(client: Any, name: str, **more: Any) -> str:
    """Make a table with the key `pk` (a string) and return its name."""
    client.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        **{"BillingMode": "PAY_PER_REQUEST", **more},
    )
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    return name


def stream_records(server: DynamoDBServer, arn: str) -> list[Any]:
    """All records of a stream of one shard, up to its first empty page."""
    streams = dynamodb_client(server.facts(), service="dynamodbstreams")
    (shard,) = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
    place = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
    iterator, found = streams.get_shard_iterator(**place)["ShardIterator"], []
    while page := (answer := streams.get_records(ShardIterator=iterator))["Records"]:
        found += page
        iterator = answer["NextShardIterator"]
    return found
