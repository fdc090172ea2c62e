"""What must be there before anything can be reconciled, and waits for it: an API server, resource kinds, rights."""

import asyncio
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kubernetes.aio import client

from whimbrel_api.base import GROUP, VERSION
from whimbrel_operator.errors import Forbidden, NotInstalled
from whimbrel_operator.health import Health
from whimbrel_operator.troubles import told

LOG: Final = logging.getLogger("whimbrel.startup")
KINDS: Final = ("migrations", "validations", "reversesyncs")
_INTERNAL: Final = "workerreports"
_ROLES: Final = "helm upgrade --install whimbrel charts/whimbrel"
_CRDS: Final = "kubectl apply --server-side -f crds/"
_FIRST, _LONGEST = 1.0, 15.0


@dataclass(frozen=True, order=True)
class Right:
    """A verb on a resource of a group; `namespace` empty: in all of them."""

    group: str
    resource: str
    verb: str
    namespace: str = ""

    def __str__(self) -> str:
        named = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {named} in {f'namespace {self.namespace}' if self.namespace else 'all namespaces'}"


def rights(namespaces: Sequence[str], own: str) -> Iterator[Right]:
    """The rights without which the process could not begin; those of single acts are told when they are missing."""
    for namespace in namespaces or ("",):
        for kind in KINDS:
            yield from (Right(GROUP, kind, verb, namespace) for verb in ("list", "watch", "patch"))
            yield Right(GROUP, f"{kind}/status", "update", namespace)
        for group, kind in ((GROUP, _INTERNAL), ("batch", "jobs")):
            yield from (Right(group, kind, verb, namespace) for verb in ("list", "watch", "create", "delete"))
    yield from (Right("coordination.k8s.io", "leases", verb, own) for verb in ("get", "create", "update"))


async def ready(api: client.ApiClient, namespaces: Sequence[str], own: str, health: Health) -> None:
    """Return once all is there. What is missing is logged once, in a line that says what to do, and asked again."""
    wait, said = _FIRST, ""
    while True:
        try:
            await _look(api, namespaces, own)
            break
        except Exception as error:  # noqa: BLE001 - whatever it is, a process that ends here would help nobody
            line = told(error).line
            level = logging.ERROR if isinstance(error, NotInstalled | Forbidden) else logging.WARNING
        if line != said:
            LOG.log(level, "cannot begin yet, tries again: %s", line)
        health.waits_for, said = line, line
        await asyncio.sleep(wait)
        wait = min(_LONGEST, wait * 1.5)
    health.waits_for = ""
    if said:
        LOG.info("all is there now")


async def _look(api: client.ApiClient, namespaces: Sequence[str], own: str) -> None:
    """Raises an error for the first thing that is missing."""
    missing = await missing_kinds(api)
    if missing:
        raise NotInstalled(
            f"the cluster does not know {', '.join(missing)} of {GROUP}/{VERSION}", todo=f"install them: {_CRDS}"
        )
    lacking = [each for each in rights(namespaces, own) if not await _may(api, each)]
    if lacking:
        shown = "; ".join(str(each) for each in lacking[:4]) + (
            f" and {len(lacking) - 4} more" if len(lacking) > 4 else ""
        )
        raise Forbidden(f"the operator's account lacks rights: {shown}", todo=f"install the roles: {_ROLES}")


async def missing_kinds(api: client.ApiClient) -> list[str]:
    """The kinds that the API server does not serve, by their plurals. Raises ApiException."""
    answer = await _ask(api, "GET", f"/apis/{GROUP}/{VERSION}", accept_missing=True)
    known = {each.get("name") for each in answer.get("resources", [])}
    return [name for name in (*KINDS, _INTERNAL) if name not in known]


async def _may(api: client.ApiClient, right: Right) -> bool:
    resource, _, sub = right.resource.partition("/")
    asked = {"group": right.group, "resource": resource, "subresource": sub, "verb": right.verb}
    spec = {"resourceAttributes": asked | {"namespace": right.namespace}}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
    answer = await _ask(api, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
    return bool(answer.get("status", {}).get("allowed"))


async def _ask(
    api: client.ApiClient, method: str, path: str, body: Any = None, *, accept_missing: bool = False
) -> dict[str, Any]:
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    request = await api.param_serialize(method, path, header_params=headers, body=body, auth_settings=["BearerToken"])
    async with asyncio.timeout(10):
        answer: Any = await api.call_api(*request)
        content: bytes = await answer.read()
    if accept_missing and answer.status == 404:
        return {}
    if not 200 <= answer.status <= 299:
        raise client.ApiException(status=answer.status, reason=answer.reason, body=content.decode(errors="replace"))
    found: dict[str, Any] = json.loads(content)
    return found
