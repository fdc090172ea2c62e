"""The agent as a whole: which pods this node has, from the API server's word; what each does stands in pods.py."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from whimbrel_testbed.kubernetes.agent.client import Changed, Listed, connect
from whimbrel_testbed.kubernetes.agent.events import Events
from whimbrel_testbed.kubernetes.agent.logs import LogServer, own_certificate
from whimbrel_testbed.kubernetes.agent.paths import pod_address
from whimbrel_testbed.kubernetes.agent.pods import Node, Pod
from whimbrel_testbed.kubernetes.agent.processes import Keeper
from whimbrel_testbed.kubernetes.agent.registration import Registration
from whimbrel_testbed.kubernetes.agent.shapes import Json
from whimbrel_testbed.kubernetes.agent.sources import Sources


@dataclass(frozen=True)
class Settings:
    """What the agent is started with; without a certificate it makes one of its own."""

    kubeconfig: Path
    node_name: str
    directory: Path
    renew_seconds: float
    certificate: tuple[Path, Path] | None = None
    environment_file: Path | None = None


class Agent:
    """The pods of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._pods: dict[str, Pod] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._swept = False

    def find(self, namespace: str, name: str) -> Pod | None:
        """Return the pod of that name; of two (one about to go) the younger."""
        wanted = (namespace, name)
        found = [
            p for p in self._pods.values() if (p.pod["metadata"]["namespace"], p.pod["metadata"]["name"]) == wanted
        ]
        return found[-1] if found else None

    async def run(self) -> None:
        """Follow the node's pods until cancelled."""
        query = {"fieldSelector": f"spec.nodeName={self._node.name}"}
        async for news in self._node.api.follow("/api/v1/pods", query):
            if isinstance(news, Listed):
                self._listed(news.items)
            else:
                self._one(news)

    async def close(self) -> None:
        """Give up every pod where it stands; nothing is told to the API server."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _listed(self, pods: list[Json]) -> None:
        present = {pod["metadata"]["uid"] for pod in pods}
        for uid in set(self._pods) - present:
            self._pods[uid].vanish()
        if not self._swept:
            _sweep(self._node.directory / "pods", present)
            self._swept = True
        for pod in pods:
            self._take(pod)

    def _one(self, news: Changed) -> None:
        if news.kind != "DELETED":
            self._take(news.item)
        elif (gone := self._pods.get(news.item["metadata"]["uid"])) is not None:
            gone.vanish()

    def _take(self, pod: Json) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._pods:
            self._pods[uid].update(pod)
            return
        address = pod_address(uid, {other.ip for other in self._pods.values()})
        self._pods[uid] = Pod(self._node, pod, address)
        self._tasks[uid] = task = asyncio.create_task(self._pods[uid].run())
        task.add_done_callback(lambda done: self._left(uid, done))

    def _left(self, uid: str, task: asyncio.Task[None]) -> None:
        self._pods.pop(uid, None)
        self._tasks.pop(uid, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler({"message": "a pod's task failed", "exception": error})


def _sweep(folder: Path, present: set[str]) -> None:
    """Remove what pods left that the API server forgot while no agent ran."""
    if folder.is_dir():
        for entry in folder.iterdir():
            if entry.name not in present:
                shutil.rmtree(entry)


async def serve(settings: Settings) -> None:
    """Be a node until cancelled; then every process of every pod is killed, as by a loss of power."""
    settings.directory.mkdir(parents=True, exist_ok=True)
    settings.directory.chmod(0o700)
    api, keeper = await connect(settings.kubeconfig), Keeper()
    name = settings.node_name
    agent = Agent(
        Node(name, api, settings.directory, Sources(api), Events(api, name), keeper, settings.environment_file)
    )
    logs = LogServer(agent.find)
    try:
        await logs.start(*(settings.certificate or own_certificate(settings.directory / "tls")))
        await _be_node(Registration(api, name, logs.port, settings.renew_seconds), agent)
    finally:
        await agent.close()
        keeper.close()
        await logs.close()
        await api.close()


async def _be_node(registration: Registration, agent: Agent) -> None:
    await registration.register()
    async with asyncio.TaskGroup() as group:
        group.create_task(registration.keep())
        group.create_task(agent.run())
