"""What is said of Kinesis data streams before anything is done: in manifests, and by a look at the streams."""

from __future__ import annotations

from typing import Any

import pytest

from support.memory_kinesis import World
from whimbrel_api.endpoints import DynamoDBSource
from whimbrel_api.rules import breaches
from whimbrel_api.tasks import TaskFile
from whimbrel_worker.endpoints.dynamodb.calls.access import of_source
from whimbrel_worker.endpoints.dynamodb.calls.signing import KINESIS, Signer
from whimbrel_worker.endpoints.dynamodb.dialect import AWS
from whimbrel_worker.endpoints.dynamodb.preflight.checks import Trials, refused
from whimbrel_worker.endpoints.dynamodb.preflight.estimate import assess, limits_of, too_long
from whimbrel_worker.endpoints.dynamodb.preflight.kinesis import KinesisLook, look
from whimbrel_worker.endpoints.dynamodb.tables.definition import Described
from whimbrel_worker.engine.ports import Problem
from whimbrel_worker.secrets import Secrets

STREAM_ARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/changes"


def source(**more: Any) -> DynamoDBSource:
    return DynamoDBSource.model_validate({"region": "eu-west-1"} | more)


def a_file(**more: Any) -> TaskFile:
    target = {"dynamodb": {"endpoint": "http://h", "credentialsSecretRef": {"name": "s"}}}
    dynamodb = {"dynamodb": {"region": "eu-west-1"}}
    document = {"task": "preflight", "taskId": "t", "migration": "n/m", "source": dynamodb, "target": target}
    return TaskFile.model_validate(document | more)


def looked(world: World, names: tuple[str, ...] = ("t",), stream: str = "s") -> tuple[KinesisLook, list[Problem]]:
    """The look at a world's tables, with what may not be called."""
    log = world.log(stream=stream)
    trials = Trials(log.streams.client, log.streams.client, AWS, a_file())
    found = look(log, trials, [Described({"TableName": name, "TableStatus": "ACTIVE"}) for name in names])
    return found, [*found.judged(5400.0), *refused(trials.refusals)]


# --- manifests ---


@pytest.mark.parametrize("stream", ["changes", STREAM_ARN])
def test_a_stream_is_named_or_given_by_its_arn(stream: str) -> None:
    assert not list(breaches(source(kinesisStreams=[{"tables": ["a", "b-*"], "stream": stream}])))


def test_an_arn_of_another_region_is_refused() -> None:
    wanted = [{"tables": ["a"], "stream": STREAM_ARN.replace("west", "central")}]
    ((where, message),) = breaches(source(kinesisStreams=wanted))
    assert where == ("kinesisStreams",)
    assert "own region" in message


@pytest.mark.parametrize("entry", [{"stream": "s"}, {"tables": [], "stream": "s"}, {"tables": ["a"], "stream": "a b"}])
def test_an_entry_names_tables_and_a_stream(entry: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="kinesisStreams"):
        source(kinesisStreams=[entry])


# --- calls ---


def test_calls_go_to_kinesis_own_host_and_are_signed_for_it() -> None:
    access = of_source(source(), Secrets({})).for_kinesis()
    assert access.endpoint == "https://kinesis.eu-west-1.amazonaws.com"
    assert "Kinesis" in access.where
    assert of_source(source(endpoint="http://h:1"), Secrets({})).for_kinesis().endpoint == "http://h:1"
    headers = Signer(access.endpoint, "eu-west-1", "AKID", "secret", None, KINESIS).headers("A.B", b"{}")
    assert headers["Content-Type"] == "application/x-amz-json-1.1"
    assert "/eu-west-1/kinesis/aws4_request" in headers["Authorization"]


# --- the look ---


def test_a_stream_that_serves_is_told_with_what_it_keeps() -> None:
    world = World(1, shards=2)
    world.kinesis.ask("IncreaseStreamRetentionPeriod", {"StreamARN": world.arn, "RetentionPeriodHours": 168})
    found, problems = looked(world)
    assert found.kept == 168 * 3600
    (problem,) = problems
    assert not problem.fatal
    assert "168 hours in 2 open shards" in problem.why
    assert "the copy takes about 1.5 h" in problem.why
    assert "GetRecords" in world.kinesis.asked


def test_a_table_without_its_destination_is_refused() -> None:
    world = World(1)
    world.point("t", "Disable")
    for stream, why in (("s", "DISABLED"), ("other", "no streaming destination")):
        _, (problem,) = looked(world, stream=stream)
        assert problem.fatal
        assert why in problem.why
        assert "enable-kinesis-streaming-destination --table-name t" in problem.todo


@pytest.mark.parametrize(
    "action",
    ["kinesis:DescribeStreamSummary", "kinesis:ListShards", "kinesis:GetShardIterator", "kinesis:GetRecords",
     "dynamodb:DescribeKinesisStreamingDestination"],
)  # fmt: skip
def test_a_missing_right_is_named_with_its_service(action: str) -> None:
    world = World(1)
    world.service.dials.refused.add(action.removeprefix("dynamodb:"))
    _, problems = looked(world)
    (problem,) = [problem for problem in problems if problem.fatal]
    assert f"a permission is missing: {action}" in problem.what


def test_coarse_times_and_many_tables_in_one_stream_are_warned_of() -> None:
    names = tuple("abcde")
    world = World(1, names)
    world.point("a", precision="MILLISECOND")
    _, problems = looked(world, names)
    assert not any(problem.fatal for problem in problems)
    assert any("5 tables share one" in problem.what for problem in problems)
    assert any("--table-name a" in problem.todo for problem in problems)


def test_the_retention_of_the_stream_decides_how_long_a_copy_may_take() -> None:
    key = {
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
    }
    large = Described({"TableName": "large", "ItemCount": 10**9, "TableSizeBytes": 10**12} | key)
    file = a_file(snapshot={"workers": 2})
    (problem,) = too_long([large], file)
    assert "kinesisStreams" in problem.todo
    assert not list(too_long([large], file, 168 * 3600.0))
    (problem,) = too_long([large], file, 30 * 3600.0)
    assert "for 30.0 h only" in problem.what
    (told,) = assess([large], limits_of(file), lambda _: "changes")
    assert told.stream == "Kinesis changes"
