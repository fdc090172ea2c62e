"""What `helm test` asks: are the kinds served, are the operator's pods ready, does one of them hold the Lease?

`python -m whimbrel_operator.installed NAMESPACE SELECTOR`. Exits with 0 where all is well, 1 where it is not. Nothing
is changed here.
"""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import aiohttp
from kubernetes.aio import client

from whimbrel_operator import startup
from whimbrel_operator.errors import OperatorError
from whimbrel_operator.runtime.kubernetes.api import Api
from whimbrel_operator.runtime.kubernetes.client import connect
from whimbrel_operator.runtime.kubernetes.kinds import LEASES, PODS
from whimbrel_operator.settings import PORT, way_in
from whimbrel_operator.specs.names import LEASE
from whimbrel_operator.troubles import told

WELL, ILL = 0, 1
_TIMEOUT: Final = 90.0
_PAUSE: Final = 1.0
_ONE_ANSWER: Final = aiohttp.ClientTimeout(total=5)


async def troubles(api: client.ApiClient, namespace: str, selector: str) -> list[str]:
    """What is wrong now, a sentence each; none where the operator works. Raises OperatorError."""
    missing = await startup.missing_kinds(api)
    if missing:
        return [f"the cluster does not serve {', '.join(missing)}: install the definitions with crds.enabled=true"]
    asked = Api(api)
    pods = [pod for pod in await asked.list(PODS, namespace, selector) if alive(pod)]
    found = await _unready(pods)
    if not pods:
        found.append(f"there is no pod: kubectl -n {namespace} describe deployment -l {selector}")
    lease = await asked.get(LEASES, namespace, LEASE)
    if not holder(lease):
        found.append(f"nobody holds the Lease {LEASE}: kubectl -n {namespace} get lease {LEASE} -o yaml")
    return found


def alive(pod: Mapping[str, Any]) -> bool:
    """Whether it is there to work: not on its way out, nor ended, such as one that was evicted and is kept. Pure."""
    return "deletionTimestamp" not in pod["metadata"] and _phase(pod) not in ("Succeeded", "Failed")


def _phase(pod: Mapping[str, Any]) -> str:
    return str((pod.get("status") or {}).get("phase") or "not known")


async def _unready(pods: Sequence[Mapping[str, Any]]) -> list[str]:
    """The pods that are not ready, with their own words; all are asked at once."""
    async with aiohttp.ClientSession(timeout=_ONE_ANSWER) as session:
        said = await asyncio.gather(*(_readyz(session, pod) for pod in pods))
    return [f"pod {pod['metadata']['name']}: {word}" for pod, word in zip(pods, said, strict=True) if word]


async def _readyz(session: aiohttp.ClientSession, pod: Mapping[str, Any]) -> str:
    """Why a pod is not ready, empty where it is."""
    address = (pod.get("status") or {}).get("podIP", "")
    if not address:
        return f"has no address yet (phase {_phase(pod)})"
    host = f"[{address}]" if ":" in address else address
    try:
        async with session.get(f"http://{host}:{PORT}/readyz") as answer:
            said = (await answer.text()).strip()
            return "" if answer.status == 200 else said or f"/readyz answers {answer.status}"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"/readyz at {host}:{PORT} does not answer: {str(error) or type(error).__name__}"


def holder(lease: Mapping[str, Any] | None) -> str:
    """Who holds the Lease; empty for nobody. Pure."""
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")


async def _now(api: client.ApiClient, namespace: str, selector: str) -> list[str]:
    """The troubles of the moment, an API server that does not answer among them."""
    try:
        return await troubles(api, namespace, selector)
    except (OperatorError, client.ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
        return [told(error).line]


async def _ask(namespace: str, selector: str) -> list[str]:
    """The troubles that are still there at the end of the time."""
    kubeconfig, account = way_in(os.environ)
    loop = asyncio.get_running_loop()
    end = loop.time() + _TIMEOUT
    async with await connect(kubeconfig=kubeconfig, service_account=account) as api:
        while True:
            found = await _now(api, namespace, selector)
            if not found or loop.time() > end:
                return found
            await asyncio.sleep(_PAUSE)


def main(arguments: Sequence[str]) -> int:
    """Ask until all is well or the time is over, say it, and return the exit code."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m whimbrel_operator.installed NAMESPACE SELECTOR\n")
        return ILL
    try:
        found = asyncio.run(_ask(*arguments))
    except OperatorError as error:
        found = [str(error)]
    sys.stdout.write("".join(f"not well: {each}\n" for each in found) or "the operator is ready and one of it leads\n")
    return ILL if found else WELL


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
