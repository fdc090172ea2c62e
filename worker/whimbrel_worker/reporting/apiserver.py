"""The WorkerReport on a Kubernetes API server: one call, one try. When to call stands in courier.

The account needs `get` on workerreports and `patch` on workerreports/status, by name, and nothing else.
"""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

from kubernetes.client import ApiClient, Configuration, CustomObjectsApi
from kubernetes.client.exceptions import ApiException
from pydantic import ValidationError
from urllib3.exceptions import HTTPError

from whimbrel_api.base import GROUP, VERSION
from whimbrel_api.reports import WorkerReport
from whimbrel_api.tasks import Orders, ReportResource
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.reporting.ports import Undelivered

_log = logging.getLogger(__name__)
_TIMEOUT = (3.0, 10.0)
_LONGEST_REASON = 500
_JSON_PATCH = "application/json-patch+json"


class ApiServerReport:
    """Implements Post for one WorkerReport. Raises ConfigurationError where the way to the API server is not known."""

    def __init__(self, resource: ReportResource, index: int, environment: Mapping[str, str]) -> None:
        self._access = Path(resource.access)
        self._address = address(environment)
        for name in ("token", "ca.crt"):
            self._require(name)
        self._place = (GROUP, VERSION, resource.namespace, "workerreports", f"{resource.name}-{index}")
        self._complained = ""
        self._api = CustomObjectsApi(ApiClient(self._configuration()))

    @property
    def where(self) -> str:
        """The resource and the server, for messages."""
        namespace, name = self._place[2], self._place[4]
        return f"WorkerReport {namespace}/{name} on {self._address}"

    def send(self, report: WorkerReport) -> Orders | None:
        """Put the report in the place of the one before it, all of it.

        A JSON patch, because a merge patch would keep the fields of an earlier pod that this one has not set yet.
        """
        value = report.model_dump(mode="json", by_alias=True, exclude_none=True)
        patch = [{"op": "add", "path": "/status", "value": value}]
        return self._answer(
            lambda: self._api.patch_namespaced_custom_object_status(
                *self._place, body=patch, _content_type=_JSON_PATCH, _request_timeout=_TIMEOUT
            )
        )

    def look(self) -> Orders | None:
        """Read the orders."""
        return self._answer(lambda: self._api.get_namespaced_custom_object(*self._place, _request_timeout=_TIMEOUT))

    def _answer(self, call: Callable[[], object]) -> Orders | None:
        try:
            resource = cast("Mapping[str, Any]", call())
        except ApiException as error:
            _refused(error)
        except (HTTPError, OSError) as error:
            why = f"the API server cannot be reached: {str(error)[:_LONGEST_REASON]}"
            raise Undelivered(type(error).__name__, why) from None
        except ValueError:
            raise Undelivered("unreadable", "the API server's answer cannot be read") from None
        return self._orders(resource)

    def _orders(self, resource: Mapping[str, Any]) -> Orders | None:
        orders, trouble = orders_of(resource)
        if trouble and trouble != self._complained:
            _log.warning("%s: the orders cannot be read, those before stay in force: %s", self.where, trouble)
        self._complained = trouble
        return orders

    def _configuration(self) -> Configuration:
        # An empty proxy, as with none given the client takes one from the environment.
        configuration = Configuration(host=self._address, proxy="", ssl_ca_cert=str(self._access / "ca.crt"))
        # The courier tries again by itself; more tries inside one call would make its timeouts longer than they say.
        configuration.retries = False
        # The client asks the hook only for a key that is there already.
        configuration.api_key["BearerToken"] = ""
        configuration.refresh_api_key_hook = self._sign_in  # type: ignore[assignment]  # annotated as None only
        return configuration

    def _sign_in(self, configuration: Configuration) -> None:
        """Called before each call: the token's file is replaced long before its token expires."""
        configuration.api_key["BearerToken"] = f"Bearer {self._token()}"

    def _token(self) -> str:
        try:
            token = (self._access / "token").read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Undelivered("token", f"the token's file cannot be read: {type(error).__name__}") from None
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise Undelivered("token", "the token's file holds no token") from None
        return token

    def _require(self, name: str) -> None:
        if not (self._access / name).is_file():
            raise ConfigurationError(
                f"the folder for signing in to the API server has no file {name}",
                where=str(self._access),
                why="reports go to a WorkerReport and need a service account's token and the authority's certificate",
                todo="mount a projected volume of a serviceAccountToken (token) and kube-root-ca.crt (ca.crt)",
            )


def address(environment: Mapping[str, str]) -> str:
    """`https://host:port` from what Kubernetes tells every pod. Raises ConfigurationError where it tells nothing."""
    host, port = (environment.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
    if not host or not port:
        raise ConfigurationError(
            "the address of the API server is not known",
            where="environment",
            why="KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not both set, though reportResource is given",
            todo="run the worker in a pod, or give it reportFile and ordersFile",
        )
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def orders_of(resource: Mapping[str, Any]) -> tuple[Orders | None, str]:
    """The orders of a WorkerReport as the API server gives it; or None and what is wrong with them."""
    try:
        return Orders.model_validate((resource.get("spec") or {}).get("orders") or {}), ""
    except ValidationError as error:
        return None, "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())


def _refused(error: ApiException) -> NoReturn:
    """What the API server said against it; nothing of the request, whose headers hold the token."""
    if not error.status:
        raise Undelivered("TLS", f"no safe connection to the API server: {_one_line(str(error.reason))}") from None
    try:
        said = str(json.loads(error.body or "")["message"])
    except (ValueError, TypeError, LookupError):
        said = str(error.reason)
    why = f"the API server says {error.status}: {_one_line(said)}"
    raise Undelivered(f"HTTP {error.status}", why, gone=error.status == 404) from None


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST_REASON]
