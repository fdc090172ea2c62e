"""ConfigMaps, Secrets and Services on the API server, read and patched as JSON. What is written stands in patches.

No answer's body ever reaches an error or a log: it may hold a Secret. Only the server's message does.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import urllib3
from urllib3.exceptions import HTTPError

from whimbrel_worker.errors import ConfigurationError, Transient

JSON = dict[str, Any]
_TIMEOUT: Final = urllib3.Timeout(connect=3.0, read=10.0)
_MERGE: Final = "application/merge-patch+json"
_APPLY: Final = "application/apply-patch+yaml"
_QUERIES: Final = {_MERGE: "?fieldManager=whimbrel-switch", _APPLY: "?fieldManager=whimbrel-switch&force=true"}
_VERBS: Final = {"GET": "get", "PATCH": "patch"}
_LONGEST: Final = 500


class Objects:
    """Objects of one namespace. `access` is a folder with the files token and ca.crt.

    Every method raises Transient where another try may help, ConfigurationError where a person must act.
    """

    def __init__(self, address: str, access: Path, namespace: str) -> None:
        self._address, self._access, self._namespace = address, access, namespace
        self._pool = urllib3.PoolManager(ca_certs=str(access / "ca.crt"), retries=False, timeout=_TIMEOUT)

    def get(self, plural: str, name: str) -> JSON | None:
        """One object; None where there is none."""
        return self._ask("GET", f"{plural}/{name}")

    def merge(self, plural: str, name: str, patch: Mapping[str, Any]) -> None:
        """A merge patch; Transient where the resourceVersion in it has passed."""
        if self._ask("PATCH", f"{plural}/{name}", patch, _MERGE) is None:
            raise Transient(f"{plural}/{name} went away meanwhile", where=f"namespace {self._namespace}")

    def apply(self, plural: str, body: Mapping[str, Any]) -> None:
        """Server-side apply: makes the object where there is none."""
        self._ask("PATCH", f"{plural}/{body['metadata']['name']}", body, _APPLY)

    def _ask(self, method: str, what: str, body: Mapping[str, Any] | None = None, kind: str = "") -> JSON | None:
        url = f"{self._address}/api/v1/namespaces/{self._namespace}/{what}{_QUERIES.get(kind, '')}"
        headers = {"Authorization": f"Bearer {self._token()}", "Accept": "application/json"}
        sent = json.dumps(body).encode() if body is not None else None
        try:
            answer = self._pool.request(
                method, url, body=sent, headers=headers | ({"Content-Type": kind} if kind else {})
            )
        except (HTTPError, OSError) as error:
            raise Transient(
                "the API server cannot be reached", where=self._address, why=str(error)[:_LONGEST]
            ) from None
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise self._refused(method, what, answer.status, answer.data)
        return _object(answer.data)

    def _token(self) -> str:
        try:
            return (self._access / "token").read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Transient(
                "the token's file cannot be read", where=str(self._access), why=type(error).__name__
            ) from None

    def _refused(self, method: str, what: str, status: int, content: bytes) -> Exception:
        verb, where = _VERBS[method], f"namespace {self._namespace}"
        why = f"{status}: {_message(content)}"
        if status in (HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS) or status >= 500:
            return Transient(f"the API server did not {verb} {what}", where=where, why=why)
        todo = "give the switch's serviceAccountName that right: docs/hooks.md shows the Role" if status == 403 else ""
        return ConfigurationError(f"the API server refused to {verb} {what}", where=where, why=why, todo=todo)


def _object(content: bytes) -> JSON:
    try:
        value = json.loads(content)
    except ValueError:
        raise Transient("the API server's answer cannot be read") from None
    if not isinstance(value, dict):
        raise Transient("the API server's answer is no object")
    return value


def _message(content: bytes) -> str:
    """The words of a refusal, which is a Status and holds nothing of the object but its name."""
    try:
        told = json.loads(content)
        return " ".join(str(told["message"]).split())[:_LONGEST] if told.get("kind") == "Status" else ""
    except (ValueError, TypeError, LookupError, AttributeError):
        return ""
