"""What the pre-flight says of a copy that outlasts the streams, with a volume for the changes and without one."""

from typing import Any

import pytest

from whimbrel_api.tasks import TaskFile
from whimbrel_worker.endpoints.dynamodb.preflight.estimate import too_long
from whimbrel_worker.endpoints.dynamodb.tables.definition import Described

LARGE = Described({"TableName": "large", "ItemCount": 10**8, "TableSizeBytes": 10**12})


def file(stream: dict[str, Any], workers: int) -> TaskFile:
    keys = {"credentialsSecretRef": {"name": "k"}}
    document = {
        "task": "preflight", "taskId": "preflight", "migration": "shop/items", "stream": stream,
        "source": {"dynamodb": {"region": "us-east-1"} | keys}, "snapshot": {"workers": workers},
        "target": {"dynamodb": {"endpoint": "http://pc:5432"} | keys},
    }  # fmt: skip
    return TaskFile.model_validate(document)


@pytest.mark.parametrize("spool", [{}, {"spool": {"claimName": "changes"}}])
def test_without_a_volume_it_is_refused_and_with_one_it_is_a_warning(spool: dict[str, Any]) -> None:
    (problem,) = too_long([LARGE], file(spool, workers=1))
    assert problem.fatal is (spool == {})
    assert "34.7 h" in problem.what
    assert ("spec.stream.spool.claimName" in problem.todo) is (spool == {})
    assert ("the volume changes" in problem.todo) is bool(spool)


def test_a_short_copy_needs_none() -> None:
    assert not list(too_long([LARGE], file({}, workers=4)))
