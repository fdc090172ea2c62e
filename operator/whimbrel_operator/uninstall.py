"""What the chart asks before `helm uninstall`: does a resource still wait for the operator? Nothing is changed here.

`python -m whimbrel_operator.uninstall [NAMESPACE …]`, without names in all namespaces. Exits with 0 where nothing
holds the release, 1 where something does, 2 where that could not be found out.
"""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from whimbrel_api.base import GROUP
from whimbrel_operator.errors import NotInstalled, OperatorError
from whimbrel_operator.handlers import FINALIZER
from whimbrel_operator.runtime.kubernetes.api import Api
from whimbrel_operator.runtime.kubernetes.client import connect
from whimbrel_operator.runtime.kubernetes.kinds import RESOURCES
from whimbrel_operator.settings import way_in

FREE, HELD, UNKNOWN = 0, 1, 2
_TIMEOUT: Final = 60.0
_MOST_TOLD: Final = 20
_KINDS: Final = ",".join(kind.plural for kind in RESOURCES.values())


@dataclass(frozen=True, order=True)
class Held:
    """A resource with the operator's finalizer; `ends` where somebody has deleted it already."""

    kind: str
    namespace: str
    name: str
    phase: str
    ends: bool

    def __str__(self) -> str:
        state = "is being deleted" if self.ends else f"phase {self.phase or 'not known'}"
        return f"{self.kind} {self.namespace}/{self.name} ({state})"


async def holders(api: Api, namespaces: Sequence[str]) -> list[Held]:
    """All resources that hold the release, in order. Raises OperatorError."""
    found: list[Held] = []
    for kind, path in RESOURCES.items():
        for namespace in namespaces or ("",):
            try:
                listed = await api.list(path, namespace)
            except NotInstalled:
                break
            found += [held(kind, body) for body in listed if FINALIZER in body["metadata"].get("finalizers", ())]
    return sorted(found)


def held(kind: str, body: Mapping[str, Any]) -> Held:
    """What is told about a resource. Pure."""
    meta = body["metadata"]
    phase = str((body.get("status") or {}).get("phase") or "")
    return Held(kind, meta["namespace"], meta["name"], phase, "deletionTimestamp" in meta)


def verdict(found: Sequence[Held]) -> str:
    """What a person reads: what holds the release, and what to do. Pure."""
    if not found:
        return "nothing waits for the operator; the release can go"
    many = "1 resource holds" if len(found) == 1 else f"{len(found)} resources hold"
    places = sorted({each.namespace for each in found})
    return "\n".join(
        [
            f"not uninstalled: {many} the finalizer {FINALIZER}, which the running operator alone",
            "takes away, once the workers have ended:",
            *_cut([f"  {each}" for each in found], "more"),
            "Delete them first; that ends migrations under way, and targets keep their data:",
            *_cut([f"  kubectl -n {place} delete {_KINDS} --all" for place in places], "namespaces more"),
            "then `helm uninstall` again; or go on as before with `helm rollback RELEASE REVISION`, the last revision.",
            "Where the operator cannot run any more: docs/install.md, Uninstall.",
        ]
    )


def _cut(lines: Sequence[str], more: str) -> list[str]:
    """As many as a person reads, and how many there are besides."""
    left = len(lines) - _MOST_TOLD
    return [*lines[:_MOST_TOLD], *([f"  and {left} {more}"] if left > 0 else [])]


async def _ask(namespaces: Sequence[str]) -> list[Held]:
    kubeconfig, account = way_in(os.environ)
    async with (
        asyncio.timeout(_TIMEOUT),
        await connect(kubeconfig=kubeconfig, service_account=account) as client,
    ):
        return await holders(Api(client), namespaces)


def main(namespaces: Sequence[str]) -> int:
    """Ask, say it, and return the exit code."""
    try:
        found = asyncio.run(_ask(namespaces))
    except (OperatorError, TimeoutError) as error:
        why = str(error) or f"the API server took longer than {_TIMEOUT:.0f} s"
        sys.stdout.write(f"not uninstalled: whether a resource of {GROUP} waits for the operator is not known; {why}\n")
        return UNKNOWN
    sys.stdout.write(verdict(found) + "\n")
    return HELD if found else FREE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
