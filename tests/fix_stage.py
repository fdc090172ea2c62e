"""A stage for the Kubernetes runtime: what it holds stands in support.stage."""

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from support.stage import ROLE, Cluster, Play, Rights, Stage, stage
from whimbrel_operator.specs.rights import OPERATOR_RULES


@pytest.fixture(scope="module")
def rights(cluster: Cluster) -> Iterator[Rights]:
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": ROLE}}
    cluster.kubectl("create", "-f", "-", input=json.dumps({**role, "rules": OPERATOR_RULES}))
    told = yaml.safe_load(cluster.kubectl("config", "view", "--raw", "--flatten", "--minify"))["clusters"][0]["cluster"]
    where = urlsplit(told["server"])
    environ = {"KUBERNETES_SERVICE_HOST": str(where.hostname), "KUBERNETES_SERVICE_PORT": str(where.port)}
    yield Rights(environ, base64.b64decode(told["certificate-authority-data"]))
    cluster.kubectl("delete", "clusterrole", ROLE)


@pytest.fixture
def play(cluster: Cluster, rights: Rights, namespace: str, tmp_path: Path) -> Play:
    """Run a scene on a stage of its own."""

    async def whole(scene: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
        async with stage(cluster, rights, namespace, tmp_path) as ready:
            await scene(ready)

    return lambda scene: asyncio.run(whole(scene))
