"""Plain requests to the API server that kubectl would use, and its refusals as errors. No resource stands here.

Synchronous: for a person's tools. The operator itself has an asynchronous client of its own.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from kubernetes import client
from kubernetes import config as kubeconfigs
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

from whimbrel_operator.errors import (
    ClusterAway,
    Forbidden,
    NoCluster,
    NotFound,
    NotInstalled,
    OperatorError,
    Refused,
)

JSON = dict[str, Any]

# The client's own functions for kubeconfigs carry no types.
_LOADER: Final[Any] = kubeconfigs
_TIMEOUT: Final = (5.0, 30.0)
_PAGE: Final = 500
_SECRETS: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_INSTALL: Final = "install them: kubectl apply --server-side -f crds/"


class Cluster:
    """One API server, by a kubeconfig (else $KUBECONFIG, else ~/.kube/config, else the pod's own account).

    Raises NoCluster where there is none. `namespace` is the context's own.
    """

    def __init__(self, kubeconfig: Path | None = None, context: str | None = None) -> None:
        settings = client.Configuration()
        self.namespace = _load(settings, kubeconfig, context)
        settings.retries = 1
        self.host: str = settings.host
        self._api = client.ApiClient(settings)

    def read(self, path: str, **query: str) -> JSON:
        """A GET; the answer's JSON. Raises OperatorError."""
        found: JSON = json.loads(self._ask("GET", path, query))
        return found

    def pages(self, path: str, **query: str) -> Iterator[JSON]:
        """Every item of a list, page after page. Raises OperatorError."""
        more = ""
        while True:
            found = self.read(path, limit=str(_PAGE), **query, **({"continue": more} if more else {}))
            yield from found.get("items", [])
            more = found.get("metadata", {}).get("continue", "")
            if not more:
                return

    def text(self, path: str, **query: str) -> str:
        """A GET whose answer is text, such as a log. Raises OperatorError."""
        return self._ask("GET", path, query).decode(errors="replace")

    def merge(self, path: str, patch: Mapping[str, Any], **query: str) -> None:
        """A JSON merge patch. Raises OperatorError."""
        self._ask("PATCH", path, query, patch)

    def _ask(self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None = None) -> bytes:
        headers = {"Accept": "application/json, */*"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        request = self._api.param_serialize(
            method, path, query_params=list(query.items()), header_params=headers, body=body,
            auth_settings=["BearerToken"],
        )  # fmt: skip
        try:
            answer: Any = self._api.call_api(*request, _request_timeout=_TIMEOUT)
            content: bytes = answer.read() or b""
        except (HTTPError, client.ApiException, OSError) as error:
            raise self._away(error) from None
        if not 200 <= answer.status <= 299:
            raise refusal(answer.status, content, self.host)
        return content

    def _away(self, error: Exception) -> ClusterAway:
        todo = "is it the right context, and does the server answer: kubectl config current-context; kubectl version"
        return ClusterAway(
            "the API server does not answer", where=f"the cluster {self.host}", why=_reason(error), todo=todo
        )


def _reason(error: Exception) -> str:
    """Why a connection failed, without the address and the client's own words around it."""
    cause = getattr(error, "reason", None) or error
    text = re.sub(r"^<?\w+\([^)]*\)[^:]*: ", "", str(cause))
    return text.splitlines()[0][:300] if text else type(error).__name__


def _load(settings: client.Configuration, kubeconfig: Path | None, context: str | None) -> str:
    """Fill in the settings as kubectl would find them; give the context's namespace."""
    files = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    if not any(Path(each).is_file() for each in files.split(os.pathsep) if each):
        return _load_own(settings, files)
    try:
        _LOADER.load_kube_config(files, context=context, client_configuration=settings, persist_config=False)
        contexts, current = _LOADER.list_kube_config_contexts(files)
    except (ConfigException, yaml.YAMLError, OSError, ValueError) as error:
        todo = "to see the contexts: kubectl config get-contexts"
        raise NoCluster("the kubeconfig cannot be used", where=files, why=_first_line(error), todo=todo) from None
    chosen = next((each for each in contexts if each["name"] == context), current) if context else current
    return str(chosen["context"].get("namespace") or "default")


def _load_own(settings: client.Configuration, files: str) -> str:
    """The account of the pod that this runs in. Raises NoCluster where it runs in none."""
    try:
        _LOADER.load_incluster_config(client_configuration=settings)
        return (_SECRETS / "namespace").read_text(encoding="utf-8").strip() or "default"
    except (ConfigException, OSError):
        todo = "name one with --kubeconfig FILE or KUBECONFIG=FILE"
        raise NoCluster("there is no kubeconfig", where=files, todo=todo) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def refusal(status: int, content: bytes, host: str) -> OperatorError:
    """What an answer that is no success means; its own words are kept. Pure."""
    told = _told(content)
    message = str(told.get("message") or content.decode(errors="replace").strip()[:500] or f"status {status}")
    if status == 404 and told.get("details", {}).get("name"):
        return NotFound(message)
    if status in _AWAY:
        why = f"{status}: {message}"
        return ClusterAway(
            "the API server cannot answer now", where=f"the cluster {host}", why=why, todo="try again in a moment"
        )
    return _refusals(message, host).get(status) or Refused(message, where=f"the cluster {host}")


_AWAY: Final = (429, 500, 502, 503, 504)


def _refusals(message: str, host: str) -> dict[int, OperatorError]:
    return {
        401: Refused(
            "the API server does not accept the credentials",
            where=f"the cluster {host}",
            why=message,
            todo="sign in anew; to see with what: kubectl config view --minify",
        ),
        403: Forbidden(
            message,
            where=f"the cluster {host}",
            todo="ask for this right, or use another --context; to see what you may do: kubectl auth can-i --list",
        ),
        404: NotInstalled(
            "the cluster does not know Whimbrel's resources (whimbrel.dev/v1alpha1)",
            where=f"the cluster {host}",
            todo=_INSTALL,
        ),
        409: Refused(message, where=f"the cluster {host}", todo="run the command again"),
    }


def _told(content: bytes) -> JSON:
    """The Status object that a refusal carries; empty where it carries none."""
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
