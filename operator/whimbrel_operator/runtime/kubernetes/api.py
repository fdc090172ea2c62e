"""Requests to the API server as JSON, each with a time limit, and its refusals as errors. No decision stands here."""

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from kubernetes.aio import client

from whimbrel_api.base import GROUP
from whimbrel_operator.errors import (
    ClusterAway,
    Forbidden,
    LeaseLost,
    NamespaceEnding,
    NotFound,
    NotInstalled,
    OperatorError,
    Outdated,
    Refused,
)
from whimbrel_operator.specs.names import FIELD_MANAGER

JSON = dict[str, Any]
TIMEOUT: Final = 10.0
_PAGE: Final = "500"
_TRIES: Final = 3
_LONGEST_WAIT: Final = 5.0
_MERGE: Final = "application/merge-patch+json"
_APPLY: Final = "application/apply-patch+yaml"
_VERBS: Final = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_BUSY: Final = (429, 503)


@dataclass(frozen=True)
class Kind:
    """A kind of object by its path: `api/v1` or `apis/<group>/<version>`, and its plural."""

    root: str
    plural: str

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.root.split("/")[1] if self.root.startswith("apis/") else ""


@dataclass(frozen=True)
class Call:
    """What is asked of whom, for the words of an error. An empty namespace is all of them."""

    method: str
    kind: Kind
    namespace: str
    name: str = ""
    sub: str = ""

    @property
    def path(self) -> str:
        """The path of the request."""
        within = ["namespaces", self.namespace] if self.namespace else []
        parts = [self.kind.root, *within, self.kind.plural, self.name, self.sub]
        return "/" + "/".join(part for part in parts if part)

    @property
    def verb(self) -> str:
        """The right that the request takes."""
        return "list" if self.method == "GET" and not self.name else _VERBS[self.method]

    @property
    def resource(self) -> str:
        """The resource as rules name it, such as `workerreports/status`."""
        return f"{self.kind.plural}/{self.sub}" if self.sub else self.kind.plural

    def __str__(self) -> str:
        within = f"in namespace {self.namespace}" if self.namespace else "in all namespaces"
        return f"{self.resource} {f'{self.namespace}/{self.name}' if self.name else within}"


def always() -> bool:
    """For one that writes whoever leads."""
    return True


class Api:
    """All requests of the runtime. `requests` counts them.

    `may_write` is asked before each write: a process that stood still in the middle of a pass, while another took over,
    must not go on with what it had decided before.
    """

    def __init__(
        self, api_client: client.ApiClient, timeout: float = TIMEOUT, may_write: Callable[[], bool] = always
    ) -> None:
        self._client, self._may_write = api_client, may_write
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self.requests = 0

    async def get(self, kind: Kind, namespace: str, name: str) -> JSON | None:
        """One object; None where there is none. Raises OperatorError, as all of these do."""
        try:
            return await self._ask(Call("GET", kind, namespace, name))
        except NotFound:
            return None

    async def list(self, kind: Kind, namespace: str, labels: str = "") -> list[JSON]:
        """All objects with these labels, page after page, none of them from a cache."""
        found: list[JSON] = []
        query = {"limit": _PAGE} | ({"labelSelector": labels} if labels else {})
        while True:
            page = await self._ask(Call("GET", kind, namespace), query)
            found += page.get("items", [])
            more = page.get("metadata", {}).get("continue", "")
            if not more:
                return found
            query["continue"] = more

    async def create(self, kind: Kind, body: JSON) -> JSON:
        """Make an object. Raises Outdated where it is there already."""
        return await self._ask(Call("POST", kind, body["metadata"]["namespace"]), _MANAGER, body)

    async def apply(self, kind: Kind, body: JSON, manager: str = FIELD_MANAGER) -> JSON:
        """Server-side apply: the fields named become so, whoever held them."""
        meta = body["metadata"]
        query = {"fieldManager": manager, "force": "true"}
        return await self._ask(Call("PATCH", kind, meta["namespace"], meta["name"]), query, body, _APPLY)

    async def merge(self, kind: Kind, namespace: str, name: str, patch: JSON, sub: str = "") -> JSON:
        """A merge patch; with `metadata.resourceVersion` in it, raises Outdated where that has passed."""
        return await self._ask(Call("PATCH", kind, namespace, name, sub), _MANAGER, patch, _MERGE)

    async def replace(self, kind: Kind, namespace: str, name: str, body: JSON, sub: str = "") -> JSON:
        """A PUT. Raises Outdated where `metadata.resourceVersion` or `metadata.uid` have passed."""
        return await self._ask(Call("PUT", kind, namespace, name, sub), _MANAGER, body)

    async def delete(
        self, kind: Kind, namespace: str, name: str, *, uid: str = "", version: str = "", foreground: bool = False
    ) -> None:
        """Delete an object, if it is there; only that very one with a `uid`. `foreground`: not before its pods.

        With a `version`, raises Outdated where it was written since.
        """
        body: JSON = {"propagationPolicy": "Foreground" if foreground else "Background"}
        asked = {"uid": uid, "resourceVersion": version}
        if uid or version:
            body["preconditions"] = {field: value for field, value in asked.items() if value}
        try:
            await self._ask(Call("DELETE", kind, namespace, name), {}, body)
        except NotFound:
            return

    async def _ask(
        self, call: Call, query: Mapping[str, str] | None = None, body: JSON | None = None, content: str = ""
    ) -> JSON:
        """One request; one that the server is too busy for is asked again after the time that it names."""
        for left in reversed(range(_TRIES)):
            status, answer, wait = await self._send(call, query or {}, body, content)
            if 200 <= status <= 299:
                return answer
            if status not in _BUSY or not left or not 0 < wait <= _LONGEST_WAIT:
                break
            await asyncio.sleep(wait * random.uniform(1.0, 1.2))  # noqa: S311 - spreads requests, guards nothing
        raise refusal(call, status, answer, self._client.configuration.host, wait)

    async def _send(
        self, call: Call, query: Mapping[str, str], body: JSON | None, content: str
    ) -> tuple[int, JSON, float]:
        headers = {"Accept": "application/json", "Content-Type": content or "application/json"}
        self.requests += 1
        try:
            request = await self._client.param_serialize(
                call.method,
                call.path,
                query_params=list(query.items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            if call.method != "GET" and not self._may_write():
                raise LeaseLost(f"did not {call.verb} {call}", why="this process does not lead any more")
            answer: Any = await self._client.call_api(*request, _request_timeout=self._timeout)
            told = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _away(call, self._client.configuration.host, error) from error
        return answer.status, _json(told), _seconds(answer.headers.get("Retry-After", ""))


_MANAGER: Final = {"fieldManager": FIELD_MANAGER}


def _json(content: bytes) -> JSON:
    """The answer; words of a proxy that are no JSON become a message."""
    try:
        value = json.loads(content)
    except ValueError:
        return {"message": content.decode(errors="replace").strip()[:500]}
    return value if isinstance(value, dict) else {"message": str(value)[:500]}


def _seconds(text: str) -> float:
    return float(text) if text.isdigit() else 0.0


def _away(call: Call, host: str, error: Exception) -> ClusterAway:
    why = str(error) or ("it took too long" if isinstance(error, TimeoutError) else type(error).__name__)
    what = f"the API server does not answer ({call.verb} {call})"
    return ClusterAway(what, where=host, why=why, todo="nothing, it is tried again; does it answer: kubectl version")


def refusal(call: Call, status: int, answer: JSON, host: str, wait: float = 0.0) -> OperatorError:
    """What an answer that is no success means; the server's own words are kept. Pure."""
    message = str(answer.get("message") or f"status {status}")
    what = f"the API server refused to {call.verb} {call}"
    if _namespace_ends(answer):
        return NamespaceEnding(what, where=host, why=message, todo="nothing: the namespace is being deleted")
    if status in (404, 410):
        return _not_found(call, answer, message)
    if status == 409:
        return Outdated(f"{call} was changed or made meanwhile", why=message, todo="nothing, it is read again")
    if status == 403:
        return _forbidden(call, message)
    if status in _BUSY or status >= 500:
        away = ClusterAway(what, where=host, why=f"{status}: {message}", todo="nothing, it is tried again")
        away.retry_after = wait
        return away
    return Refused(what, where=host, why=f"{status}: {message}", todo=_REFUSED.get(status, ""))


def _not_found(call: Call, answer: JSON, message: str) -> OperatorError:
    """No such object, any more if it was to be written; or, where the answer names none, no such kind."""
    if call.kind.group != GROUP or (answer.get("details") or {}).get("name"):
        if call.method in ("GET", "DELETE"):
            return NotFound(f"no {call}", why=message)
        return Outdated(f"{call} is gone since it was read", why=message, todo="nothing, it is read again")
    todo = "install them: kubectl apply --server-side -f crds/"
    return NotInstalled(f"the cluster does not know {call.kind.plural}.{GROUP}", why=message, todo=todo)


_REFUSED: Final = {
    401: "the service account's token is not accepted; restart the operator's pod if it goes on",
    422: "the operator and its CRDs may be of different versions: kubectl apply --server-side -f crds/",
}


def _namespace_ends(answer: JSON) -> bool:
    causes = (answer.get("details") or {}).get("causes") or []
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)


def _forbidden(call: Call, message: str) -> Refused:
    """A missing right; what admission or a quota refuses comes with the same status and other words."""
    if "cannot" not in message:
        what = f"the cluster's rules refuse to {call.verb} {call}"
        todo = f"ask who keeps the rules of namespace {call.namespace}: kubectl describe namespace {call.namespace}"
        return Refused(what, why=message, todo=todo)
    named = f"{call.kind.plural}.{call.kind.group}" if call.kind.group else call.kind.plural
    sub = f" --subresource={call.sub}" if call.sub else ""
    return Forbidden(
        f"the operator may not {call.verb} {call.resource} of API group {call.kind.group or 'core'}"
        f" in namespace {call.namespace}",
        why=message,
        todo="grant it with the chart's ClusterRole and a binding there; to look: "
        f"kubectl auth can-i {call.verb} {named}{sub} -n {call.namespace} --as <the user named before>",
    )
