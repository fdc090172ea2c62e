"""The way to the API server: from a pod's own files or a kubeconfig. What is asked there stands in api."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kubernetes.aio import client
from kubernetes.aio import config as loaders
from kubernetes.aio.config import incluster_config
from kubernetes.aio.config.config_exception import ConfigException

from whimbrel_operator.errors import NoCluster

# The client's own loaders carry no types.
_KUBECONFIGS: Final[Any] = loaders
_IN_CLUSTER: Final[Any] = incluster_config
_CONNECTIONS: Final = 64


async def connect(
    *,
    kubeconfig: Path | None,
    service_account: Path,
    environ: Mapping[str, str] = os.environ,
) -> client.ApiClient:
    """A client by a kubeconfig, else by a service account's folder (`token`, `ca.crt`), whose token is read again.

    In a pod the address comes from KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT. Close it at the end. Raises
    NoCluster.
    """
    settings = client.Configuration()
    if kubeconfig is not None:
        await _by_kubeconfig(settings, kubeconfig)
    else:
        _by_service_account(settings, service_account, environ)
    # Python 3.13 refuses authorities without a key identifier, which managed clusters still have. All else is checked.
    settings.disable_strict_ssl_verification = True
    settings.connection_pool_maxsize = _CONNECTIONS
    found = client.ApiClient(settings)
    found.user_agent = "whimbrel-operator"
    return found


async def _by_kubeconfig(settings: client.Configuration, path: Path) -> None:
    try:
        await _KUBECONFIGS.load_kube_config(str(path), client_configuration=settings, persist_config=False)
    except (ConfigException, OSError, ValueError) as error:
        todo = f"try it: kubectl --kubeconfig {path} version"
        raise NoCluster("the kubeconfig cannot be used", where=str(path), why=_first_line(error), todo=todo) from None


def _by_service_account(settings: client.Configuration, folder: Path, environ: Mapping[str, str]) -> None:
    loader = _IN_CLUSTER.InClusterConfigLoader(
        token_filename=str(folder / "token"), cert_filename=str(folder / "ca.crt"), environ=environ
    )
    try:
        loader.load_and_set(settings)
    except (ConfigException, OSError) as error:
        todo = "run it in a pod with a service account, or name a cluster by KUBECONFIG=FILE"
        raise NoCluster(
            "the service account cannot be used", where=str(folder), why=_first_line(error), todo=todo
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
