"""Where the commands find resources: a folder of this machine, or a cluster. What the commands do stands with them."""

import contextlib
import glob
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from whimbrel_cli.exits import CliError, Exit
from whimbrel_cli.guidance import Caller, Resource, finished
from whimbrel_cli.local_logs import LocalLogs
from whimbrel_cli.logbook import LogSource
from whimbrel_cli.pieces import Piece, of_process
from whimbrel_operator.errors import Forbidden, NotFound
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.runtime.processes import is_alive
from whimbrel_operator.runtime.resources import Resources
from whimbrel_operator.runtime.store import LocalStore, default_root

KINDS = ("Migration", "Validation", "ReverseSync")


class Place(Protocol):
    """Resources, and what a person is told about the place where they are.

    `caller`: how commands are called there. `start`: how a resource comes there. `every`: seconds between two looks.
    """

    caller: Caller
    start: str
    every: float

    @property
    def store(self) -> Resources:
        """The resources."""

    def all(self, namespace: str | None, *, everywhere: bool, kind: str | None = None) -> Sequence[Resource]:
        """The resources of a namespace, or of all; those of one kind where it is named."""

    def document(self, key: Key) -> dict[str, Any]:
        """A resource as scripts read it."""

    def whereabouts(self, key: Key) -> Iterator[str]:
        """Where the workers' logs are, and whether anybody works on it at all."""

    def kept_in_git(self, key: Key) -> str:
        """Who would put a change of the live object back; empty where nobody is seen to."""

    def pieces(self, key: Key) -> Sequence[Piece]:
        """The workers of a resource, as what they are there, with what they report."""

    def hidden(self) -> Sequence[str]:
        """What was left out of all that was read so far, because it may not be read."""

    def logs(self, key: Key) -> LogSource:
        """What the workers of a resource write."""

    def difference_files(self, key: Key, task: str) -> Sequence[Path]:
        """The files in which a comparison listed what differs; none where they are not kept."""


class LocalPlace:
    """A folder of this machine, on which `whimbrel run` works."""

    caller = Caller()
    start = "whimbrel run FILE"
    every = 0.4

    def __init__(self, store: LocalStore) -> None:
        self._store = store

    @property
    def store(self) -> Resources:
        """The resources of the folder."""
        return self._store

    def all(self, namespace: str | None, *, everywhere: bool, kind: str | None = None) -> Sequence[Resource]:
        """The resources of a namespace; of all where none is named."""
        return [self._store.get(key) for key in self._store.list(kind, None if everywhere else namespace)]

    def document(self, key: Key) -> dict[str, Any]:
        """The resource with all defaults."""
        return self._store.get(key).model_dump(mode="json", by_alias=True, exclude_none=True)

    def whereabouts(self, key: Key) -> Iterator[str]:
        """The folder of the logs, and whether a `whimbrel run` works on it."""
        if instances := self._store.instances(key):
            yield f"Logs     {instances[0].folder.parent}/*/log"
        if not finished(self._store.get(key)) and not self._store.worked_on(key):
            yield "Idle     no `whimbrel run` works on it now; to go on: whimbrel run FILE"

    def kept_in_git(self, key: Key) -> str:
        """Nobody: what commands change here stands beside the manifest."""
        del key
        return ""

    def pieces(self, key: Key) -> Sequence[Piece]:
        """The processes that work on it, or did."""
        found = ((each.name, each.known(), each.report()[0]) for each in self._store.instances(key))
        return [
            of_process(name, known, report, alive=known is not None and is_alive(known.pid, known.birth))
            for name, known, report in found
        ]

    def hidden(self) -> Sequence[str]:
        """Nothing: a folder is readable or is not."""
        return ()

    def logs(self, key: Key) -> LogSource:
        """The files that the processes write."""
        return LocalLogs(self._store, key)

    def difference_files(self, key: Key, task: str) -> Sequence[Path]:
        """Beside the resource, one a worker, and one for each table of items."""
        return sorted(self._store.folder(key).glob(f"differences-{glob.escape(task)}-*.jsonl"))


@dataclass(frozen=True)
class Where:
    """What the options before a command say about the place: a folder, or a cluster by kubeconfig and context.

    `plugin`: called by kubectl.
    """

    state: Path | None = None
    cluster: bool = False
    context: str | None = None
    kubeconfig: Path | None = None
    plugin: bool = False

    @property
    def on_cluster(self) -> bool:
        """Whether a cluster is meant; naming one means it."""
        return self.cluster or self.plugin or bool(self.context or self.kubeconfig)

    def open(self) -> Place:
        """The place. Raises NoCluster where there is no kubeconfig."""
        if not self.on_cluster:
            return LocalPlace(LocalStore(self.state or default_root()))
        # The client for clusters takes longer to load than a local command takes in all.
        from whimbrel_cli.cluster_place import cluster_place

        return cluster_place(self.kubeconfig, self.context, self._prefix)

    def folder(self, instead: str) -> LocalStore:
        """The folder, for a command that works on this machine alone. Raises CliError where a cluster is meant."""
        if self.on_cluster:
            raise CliError("This command works on this machine, not on a cluster.", instead, Exit.USAGE)
        return LocalStore(self.state or default_root())

    @property
    def _prefix(self) -> str:
        """How the commands are called once more for the same cluster."""
        words = ["kubectl", "whimbrel"] if self.plugin else ["whimbrel"]
        words += ["--kubeconfig", str(self.kubeconfig)] if self.kubeconfig else []
        words += ["--context", self.context] if self.context else []
        return shlex.join(words if len(words) > 2 or self.plugin else [*words, "--cluster"])


def find(place: Place, name: str, namespace: str | None, kind: str | None = None) -> Key:
    """The resource of that name; a Migration before others, unless the kind stands before it: reversesync/shop.

    Raises CliError, saying what there is instead. Kinds that may not be read are passed over, unless no other one may:
    then Forbidden is raised.
    """
    within = namespace or place.caller.namespace
    kind, name = _kind_of(name, kind)
    kinds, refused = [kind] if kind else list(KINDS), []
    for wanted in kinds:
        try:
            return place.store.find(name, namespace=within, kind=wanted)
        except NotFound:
            continue
        except Forbidden as error:
            refused.append(error)
    if len(refused) == len(kinds):
        raise refused[0]
    known = sorted(
        {f"{key.name} ({key.kind}, {key.namespace})" for each in kinds for key in _there(place, each, within)}
    )
    there = f"There are: {', '.join(known[:10])}." if known else f"There are none; start one with: {place.start}"
    raise CliError(f"No {kind or 'resource'} {name!r} in the namespace {within!r}.", there, Exit.USAGE)


def _kind_of(name: str, kind: str | None) -> tuple[str | None, str]:
    """The kind that is meant, and the bare name. Raises CliError for another kind than the command is for."""
    said, slash, bare = name.partition("/")
    if not slash:
        return kind, name
    meant = next((each for each in KINDS if said.lower().removesuffix("s") == each.lower()), None)
    if meant is None:
        raise CliError(f"There is no kind {said!r}.", f"There are: {', '.join(KINDS).lower()}.", Exit.USAGE)
    if kind not in (None, meant):
        raise CliError(f"{name} is no {kind}, and this command is for one.", code=Exit.USAGE)
    return meant, bare


def _there(place: Place, kind: str, namespace: str) -> Sequence[Key]:
    """What there is in all namespaces; in this one where no more may be seen; nothing where not even that may."""
    for within in (None, namespace):
        with contextlib.suppress(Forbidden):
            return place.store.list(kind, within)
    return ()
